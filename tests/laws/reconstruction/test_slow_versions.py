"""Each reconstruction is equal to a slow, obvious version that calls the layer itself or solves the whole problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prune.observing import inputs_of
from lightning_prune.reconstruction import Greedy, Lasso, ReduceReuse, SparseGPT
from tests.laws.reconstruction.layers import LAYERS, at, canonical, chosen, error, layer_and_input, output_of, reader

EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)
PAIRS = torch.arange(8).view(4, 2)
"""Four units of two inputs each."""


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-9, atol=1e-11)


def patches(layer: Any, x: Tensor, weight: Tensor) -> list[Tensor]:
    """Return for each group of a layer one row for every example and position, one column for every column."""
    seen = inputs_of(layer, x)
    groups = [seen[:, g].flatten(1, weight.dim() - 1).flatten(2) for g in range(seen.shape[1])]
    return [group.transpose(1, 2).reshape(-1, group.shape[1]) for group in groups]


def rows_of(weight: Tensor, groups: int) -> Tensor:
    return weight.flatten(1).unflatten(0, (groups, -1))


def least_squares(rows: Tensor, target: Tensor, damping: float) -> Tensor:
    """Return b that minimises ||rows b - target||^2 + damping ||b||^2, from the rows themselves."""
    size = rows.shape[1]
    below = damping**0.5 * torch.eye(size, dtype=rows.dtype)
    zero = torch.zeros(size, target.shape[1], dtype=rows.dtype)
    return torch.linalg.lstsq(torch.cat([rows, below]), torch.cat([target, zero]), driver="gelsd").solution


def parts(layer: Any, x: Tensor, units: Tensor) -> Tensor:
    """Return what each unit adds to a layer's outputs, (units, all outputs), by calling it with that unit alone."""
    weight = canonical(layer, layer.weight.detach())
    without = output_of(layer, torch.zeros_like(weight), x)
    found: list[Tensor] = []
    for unit in units:
        alone = torch.zeros_like(weight).index_copy_(1, unit, weight[:, unit])
        found.append((output_of(layer, alone, x) - without).flatten())
    return torch.stack(found)


# SparseGPT


def go_through(row: Tensor, inverses: list[Tensor], stays: Callable[[int], bool]) -> None:
    """Take the columns of one row in order; of each that goes, move those behind it by Hassibi's step."""
    for column, inverse in enumerate(inverses):
        if not stays(column):
            row[column:] -= row[column].clone() / inverse[0, 0] * inverse[:, 0]
            row[column] = 0.0


def inverses_of(seen: list[Tensor], damping: float) -> list[list[Tensor]]:
    """Return for each group the inverse of what is left of x x^T where the columns before each one are taken out."""
    inner = [rows.T @ rows for rows in seen]
    mean = float(torch.stack([some.diagonal() for some in inner]).mean())
    inner = [some + damping * mean * torch.eye(len(some), dtype=some.dtype) for some in inner]
    return [[torch.linalg.inv(some[column:, column:]) for column in range(len(some))] for some in inner]


@EVERY_LAYER
def test_sparse_gpt_corrects_column_by_column_with_a_new_inverse_each_time(name: str) -> None:
    layer, x = layer_and_input(name)
    weight, idea = canonical(layer, layer.weight.detach()), SparseGPT(block=5, damping=0.02)
    keep = torch.rand(weight.shape, generator=torch.Generator().manual_seed(4)) > 0.5
    inverses = inverses_of(patches(layer, x, weight), 0.02)
    expected, stays = rows_of(weight, len(inverses)).clone(), rows_of(keep, len(inverses)).tolist()
    for group, of in enumerate(inverses):
        for row, stay in zip(expected[group], stays[group], strict=True):
            go_through(row, of, stay.__getitem__)
    close(at(idea, layer, x).corrected(weight, keep), expected.view(weight.shape))


@EVERY_LAYER
@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_sparse_gpt_scores_what_is_left_of_a_weight_when_its_block_is_reached(name: str, sparsity: float) -> None:
    layer, x = layer_and_input(name)
    weight, block = canonical(layer, layer.weight.detach()), 7
    inverses = inverses_of(patches(layer, x, weight), 0.01)
    rows = rows_of(weight, len(inverses)).clone()
    expected, gone = torch.zeros_like(rows), torch.zeros(rows.shape, dtype=torch.bool)
    for start in range(0, rows.shape[2], block):
        some = slice(start, start + block)
        least = torch.stack([torch.stack([inverse[0, 0] for inverse in of[some]]) for of in inverses])
        expected[:, :, some] = rows[:, :, some].square() / least[:, None]
        part = expected[:, :, some].flatten()
        bound = part.sort().values[: round(sparsity * len(part))]
        gone[:, :, some] = torch.isin(expected[:, :, some], bound)
        rows = rows_of(weight, len(inverses)).clone()  # from the beginning: what went in the blocks before is known
        for group, of in enumerate(inverses):
            for row, going in zip(rows[group], gone[group].tolist(), strict=True):
                go_through(row, of, lambda column, going=going: not going[column])
    found = at(SparseGPT(block=block), layer, x, sparsity=sparsity)(weight, None)
    close(found, (expected / len(x)).view(weight.shape))


@EVERY_LAYER
def test_sparse_gpt_at_half_is_nearer_than_magnitude(name: str) -> None:
    layer, x = layer_and_input(name)
    weight = canonical(layer, layer.weight.detach())
    keep = chosen(SparseGPT(), layer, x)
    largest = weight.abs() > weight.abs().flatten().kthvalue(weight.numel() // 2).values
    assert int(keep.sum()) == int(largest.sum())
    better = at(SparseGPT(), layer, x).corrected(weight, keep) * keep
    assert error(layer, better, x) < error(layer, weight * largest, x)


# Greedy


@EVERY_LAYER
@pytest.mark.parametrize("units", [torch.arange(8)[:, None], PAIRS], ids=["inputs", "pairs"])
def test_greedy_takes_the_unit_that_adds_least_to_the_sum_of_those_gone(name: str, units: Tensor) -> None:
    layer, x = layer_and_input(name)
    adds = parts(layer, x, units)
    gone: list[int] = []
    while len(gone) < len(units):
        left = [unit for unit in range(len(units)) if unit not in gone]
        gone.append(min(left, key=lambda unit: float(adds[[*gone, unit]].sum(0).square().sum())))
    worth = at(Greedy(), layer, x).worth([reader(Greedy(), layer, x, units=units)])
    assert worth.argsort().tolist() == gone
    assert sorted(worth.tolist()) == [*range(1, len(units) + 1)]


def test_greedy_sums_over_all_that_read() -> None:
    one, x = layer_and_input("linear")
    other, y = layer_and_input("conv")
    adds = torch.cat([parts(one, x, PAIRS), parts(other, y, PAIRS.flip(0))], 1)
    gone: list[int] = []
    while len(gone) < 4:
        left = [unit for unit in range(4) if unit not in gone]
        gone.append(min(left, key=lambda unit: float(adds[[*gone, unit]].sum(0).square().sum())))
    readers = [reader(Greedy(), one, x, units=PAIRS), reader(Greedy(), other, y, units=PAIRS.flip(0))]
    assert Greedy().worth(readers).argsort().tolist() == gone


@EVERY_LAYER
def test_greedy_scales_by_least_squares(name: str) -> None:
    layer, x = layer_and_input(name)
    weight, idea = canonical(layer, layer.weight.detach()), Greedy(damping=0.03)
    keep = chosen(idea, layer, x)
    stay = keep.transpose(0, 1).flatten(1).any(1)
    adds = parts(layer, x, torch.arange(8)[:, None])
    damping = 0.03 * float(adds.square().sum(1).mean())
    more = least_squares(adds[stay].T, adds[~stay].sum(0)[:, None], damping)[:, 0]
    expected = weight.clone()
    expected[:, stay] *= (1.0 + more).view(1, -1, *[1] * (weight.dim() - 2))
    close(at(idea, layer, x).corrected(weight, keep) * keep, expected * keep)


# Lasso


@EVERY_LAYER
@pytest.mark.parametrize("units", [torch.arange(8)[:, None], PAIRS], ids=["inputs", "pairs"])
def test_a_unit_of_lasso_has_a_factor_up_to_its_score_and_none_above(name: str, units: Tensor) -> None:
    from sklearn.linear_model import Lasso as Fit

    layer, x = layer_and_input(name)
    adds = parts(layer, x, units)
    worth = at(Lasso(), layer, x).worth([reader(Lasso(), layer, x, units=units)])
    damping = 0.01 * float(adds.square().sum(1).mean())
    rows = torch.cat([adds.T, damping**0.5 * torch.eye(len(units), dtype=adds.dtype)])
    target = torch.cat([adds.sum(0), torch.zeros(len(units), dtype=adds.dtype)])
    examples, order = len(x), worth.argsort(descending=True)
    assert len(set(worth.tolist())) == len(units)
    for number in range(1, len(units)):  # between two scores those above have a factor: so many are left
        penalty = float(worth[order[number - 1 : number + 1]].mean()) * examples / len(rows)
        factors = Fit(penalty, fit_intercept=False, tol=1e-13, max_iter=1_000_000).fit(rows.numpy(), target.numpy())
        assert {*factors.coef_.nonzero()[0].tolist()} == {*order[:number].tolist()}


@EVERY_LAYER
def test_lasso_fits_what_is_left_by_least_squares(name: str) -> None:
    layer, x = layer_and_input(name)
    weight, idea = canonical(layer, layer.weight.detach()), Lasso(damping=0.02)
    keep = chosen(idea, layer, x)
    seen, stay = patches(layer, x, weight), keep.flatten(1).any(0)
    mean = float(torch.stack([(rows.T @ rows).diagonal() for rows in seen]).mean())
    expected = rows_of(weight, len(seen)).clone()
    for group, rows in enumerate(seen):
        lost = rows[:, ~stay] @ expected[group][:, ~stay].T
        expected[group][:, stay] += least_squares(rows[:, stay], lost, 0.02 * mean).T
    close(at(idea, layer, x).corrected(weight, keep) * keep, expected.view(weight.shape) * keep)


# Reduce and reuse


@EVERY_LAYER
def test_reduce_and_reuse_scores_by_the_variance_of_the_norm_of_a_map(name: str) -> None:
    layer, x = layer_and_input(name)
    seen = inputs_of(layer, x).transpose(1, 2)
    norms = torch.tensor([[float(seen[n, i].square().sum().sqrt()) for i in range(8)] for n in range(len(seen))])
    found = at(ReduceReuse(), layer, x).worth([reader(ReduceReuse(), layer, x)])
    torch.testing.assert_close(found.float(), norms.var(0, correction=0), rtol=1e-4, atol=1e-5)
    pairs = at(ReduceReuse(), layer, x).worth([reader(ReduceReuse(), layer, x, units=PAIRS)])
    close(pairs, found.view(4, 2).sum(1))


@EVERY_LAYER
def test_reduce_and_reuse_is_a_1x1_convolution_before_the_layer(name: str) -> None:
    """The layer with A folded in gives what the layer itself gives of maps that were rebuilt from those that stay."""
    layer, x = layer_and_input(name)
    weight, idea = canonical(layer, layer.weight.detach()), ReduceReuse(damping=0.02)
    keep = chosen(idea, layer, x)
    stay = keep.transpose(0, 1).flatten(1).any(1)
    maps = inputs_of(layer, x).transpose(1, 2).transpose(0, 1).flatten(1)  # inputs, all values that are read
    damping = 0.02 * float(maps.square().sum(1).mean())
    share = least_squares(maps[stay].T, maps[~stay].T, damping)  # from those that stay to those that go
    groups, channel = getattr(layer, "groups", 1), -1 if type(layer).__name__ == "Linear" else 1
    before = x.movedim(channel, 0).unflatten(0, (groups, 8)).clone()
    before[:, ~stay] = torch.einsum("sd,gs...->gd...", share, before[:, stay])
    rebuilt = before.flatten(0, 1).movedim(0, channel)
    folded = at(idea, layer, x).corrected(weight, keep) * keep
    close(output_of(layer, folded, x), layer(rebuilt).detach())


# What is planted is found


def planted_in(name: str, planted: tuple[int, ...]) -> tuple[Any, Tensor]:
    """Return a layer that truly uses these of its eight inputs: the others carry next to nothing, at larger weights."""
    layer, x = layer_and_input(name)
    layer.weight.requires_grad_(False)
    weight, channel = canonical(layer, layer.weight), -1 if type(layer).__name__ == "Linear" else 1
    others = torch.tensor([number for number in range(8) if number not in planted])
    weight[:, others] *= 3.0
    maps = x.movedim(channel, 0).unflatten(0, (-1, 8)).clone()
    maps[:, others] *= 1e-4
    return layer, maps.flatten(0, 1).movedim(0, channel)


@pytest.mark.parametrize("idea", [Greedy(), Lasso()], ids=str)
@pytest.mark.parametrize("planted", [(1, 4, 6), (0, 2, 7)], ids=str)
@EVERY_LAYER
def test_the_three_inputs_that_a_layer_truly_uses_are_found(idea: Any, planted: tuple[int, ...], name: str) -> None:
    layer, x = planted_in(name, planted)
    weight = canonical(layer, layer.weight)
    worth = at(idea, layer, x).worth([reader(idea, layer, x)])
    assert sorted(worth.topk(3).indices.tolist()) == [*planted]
    largest = weight.transpose(0, 1).flatten(1).norm(dim=1).topk(3).indices
    assert sorted(largest.tolist()) != [*planted]
    keep = torch.zeros_like(weight, dtype=torch.bool).index_fill_(1, torch.tensor(planted), True)
    assert error(layer, at(idea, layer, x).corrected(weight, keep) * keep, x) < 1e-6


@EVERY_LAYER
def test_lasso_sees_that_two_inputs_take_back_what_the_other_adds(name: str) -> None:
    layer, x = planted_in(name, (0, 1, 3, 5, 6))
    weight, channel = canonical(layer, layer.weight), -1 if type(layer).__name__ == "Linear" else 1
    maps = x.movedim(channel, 0).unflatten(0, (-1, 8)).clone()
    maps[:, 5] = maps[:, 6]
    weight[:, 5] = -weight[:, 6]
    x = maps.flatten(0, 1).movedim(0, channel)
    worth = at(Lasso(), layer, x).worth([reader(Lasso(), layer, x)])
    assert sorted(worth.topk(3).indices.tolist()) == [0, 1, 3]
