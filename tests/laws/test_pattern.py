"""Laws of every pattern under conf/pruner/pattern whose units lie in one weight, and formulas of those there are."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune.criterion import FilterNorm
from lightning_prune.pattern import Block, Column, Kernel, NofM, Row
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK, Layer, Uniform
from lightning_prune.targets import Targets
from tests.helpers import conv_net, criteria_without_norm, ideas, masks_of, pattern_at, patterns

PATTERNS = pytest.mark.parametrize("pattern", patterns())
SHAPES = [(1, 1), (1, 9), (9, 1), (8, 8), (7, 10), (6, 5, 3, 3), (4, 1, 3, 3), (3, 4, 5)]
TRANSPOSED = "2.weight"
"""The transposed convolution of `conv_net`, whose input dimension comes first."""


def canonical(name: str, tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1) if name == TRANSPOSED else tensor


def largest_unit(pattern: Any, shape: torch.Size) -> int:
    return int(torch.as_tensor(pattern.weights_per_unit(shape)).max())


@PATTERNS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_units_share_the_weights_out(pattern: Any, shape: tuple[int, ...]) -> None:
    at = pattern_at(pattern)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    units = at.units(scores)
    sizes = torch.as_tensor(at.weights_per_unit(scores.shape)).expand(units.shape)
    covered = torch.zeros(shape, dtype=torch.int64)
    for index in range(units.numel()):
        one = torch.zeros(units.numel(), dtype=torch.bool)
        one[index] = True
        mask = at.expand(one.view(units.shape), scores.shape)
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == int(sizes.flatten()[index])
        covered += mask
    assert torch.equal(covered, torch.ones_like(covered))


@PATTERNS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_of_units(pattern: Any, shape: tuple[int, ...]) -> None:
    at = pattern_at(pattern)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    before = scores.clone()
    units = at.units(scores)
    assert torch.isfinite(units).all()
    assert torch.equal(scores, before)
    assert torch.equal(at.units(scores), units), "deterministic"
    protected = at.protected(units)
    assert protected is None or (protected.dtype == torch.bool and protected.shape == units.shape)
    if at.single:
        assert torch.equal(units, scores)
        assert protected is None
    keep = torch.rand(units.shape, generator=torch.Generator().manual_seed(2)) > 0.5
    mask = at.expand(keep, scores.shape)
    assert torch.equal(at.units(mask.float()) > 0, keep), "units of an expanded mask are alive where they were kept"


@PATTERNS
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("criterion", criteria_without_norm())
def test_G3_G5_every_pool_reaches_its_budget_in_whole_units(pattern: Any, scope: Any, criterion: Any) -> None:
    model = conv_net()
    schedule = Polynomial(0.8, begin_step=0, end_step=6, pruning_frequency=3, initial_sparsity=0.3)
    pruner = Pruner(schedule, criterion=criterion, pattern=pattern, scope=scope)
    pruner.attach(model)
    generator = torch.Generator().manual_seed(5)
    before = masks_of(pruner)
    for step in (0, 3, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator) * (parameter != 0))
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        layers = [
            Layer(name, tuple(canonical(name, mask).shape), mask.numel(), int((~mask).sum()))
            for name, mask in before.items()
        ]
        assert pruner.after_step(step)
        now = masks_of(pruner)
        for pool in scope(layers, schedule.sparsity(step)):
            dropped = sum(int((~now[name]).sum()) for name in pool.names)
            largest = max(
                largest_unit(pattern_at(pattern, name), canonical(name, now[name]).shape) for name in pool.names
            )
            spared = [
                largest_unit(pattern_at(pattern, name), canonical(name, now[name]).shape)
                for name in pool.names
                if getattr(pattern_at(pattern, name), "spares", False)
            ]
            most = sum(now[name].numel() for name in pool.names) - sum(spared)
            assert abs(dropped - min(pool.drop, most)) <= largest / 2
        for name, mask in now.items():
            at = pattern_at(pattern, name)
            whole = canonical(name, mask)
            assert torch.equal(at.expand(at.units(whole.float()) > 0, whole.shape), whole)
            assert not (mask & ~before[name]).any()
            assert torch.equal(mask, pruner.masks[name].parameter != 0)
        before = now


class Bare(nn.Module):
    """A module that is one weight."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def alive_per_group(mask: Tensor, m: int) -> Tensor:
    """Return how many of each m consecutive inputs are alive, cut-off groups at the end included."""
    rows = mask.movedim(1, -1).long()
    return torch.nn.functional.pad(rows, (0, -rows.shape[-1] % m)).unflatten(-1, (-1, m)).sum(-1)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 19)),
        st.tuples(st.integers(1, 4), st.integers(1, 9), *[st.just(2)] * 2),
    ),
    n=st.integers(1, 5),
    more=st.integers(1, 4),
    extra=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_G3_n_of_m_holds_from_its_least_sparsity_on(
    shape: tuple[int, ...], n: int, more: int, extra: float, seed: int
) -> None:
    pattern = NofM(n, n + more)
    final = pattern.least_sparsity + extra * (1 - pattern.least_sparsity)
    model = Bare(shape, seed)
    pruner = Pruner(OneShot(final, 0), pattern=pattern)
    pruner.attach(model)
    pruner.after_step(0)
    mask = pruner.masks["weight"].mask
    assert int((~mask).sum()) == round(final * mask.numel())
    assert int(alive_per_group(mask, n + more).max()) <= n


@pytest.mark.parametrize("shape", [(6, 8), (5, 12, 3, 3), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("step_by_step", [False, True])
def test_n_of_m_keeps_the_best_of_each_group(shape: tuple[int, ...], step_by_step: bool) -> None:
    model = Bare(shape)
    rows = model.weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, 4)).numpy().copy()
    expected = np.argsort(np.argsort(-rows, axis=-1), axis=-1) < 2
    pruner = Pruner(Polynomial(0.5, 0, 8, 1) if step_by_step else OneShot(0.5, 0), pattern=NofM(2, 4))
    pruner.attach(model)
    for step in range(9):
        pruner.after_step(step)
    found = pruner.masks["weight"].mask.movedim(1, -1).unflatten(-1, (-1, 4)).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("criterion", criteria_without_norm())
@pytest.mark.parametrize("scope", ideas("scope"))
def test_G3_n_of_m_reached_step_by_step_is_full_in_every_group(criterion: Any, scope: Any) -> None:
    """What is dead already must not take the place of one of the n best, whatever its score."""
    model = Bare((12, 16))
    pruner = Pruner(Polynomial(0.5, 0, 12, 2), pattern=NofM(2, 4), criterion=criterion, scope=scope)
    pruner.attach(model)
    for step in range(13):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        pruner.after_step(step)
    assert alive_per_group(pruner.masks["weight"].mask, 4).unique().tolist() == [2]


def test_n_of_m_of_equal_scores_keeps_the_earlier() -> None:
    protected = NofM(2, 4).protected(torch.tensor([[1.0, 2.0, 1.0, 1.0, 3.0, 3.0, 3.0]]))
    assert protected.tolist() == [[True, True, False, False, True, True, False]]


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose1d(8, 3, 5), nn.ConvTranspose2d(8, 6, 3), nn.ConvTranspose3d(8, 2, 2)],
    ids=lambda m: m._get_name(),
)
def test_n_of_m_runs_along_the_inputs_of_a_transposed_convolution(layer: nn.Module) -> None:
    pruner = Pruner(OneShot(0.5, 0), pattern=NofM(2, 4))
    pruner.attach(layer)
    pruner.after_step(0)
    mask = pruner.masks["weight"].mask
    assert mask.shape == layer.weight.shape
    assert torch.equal(alive_per_group(mask.transpose(0, 1), 4), torch.full((mask.shape[1], *mask.shape[2:], 2), 2))


def test_n_of_m_of_a_weight_without_inputs_prunes_the_number_asked_for() -> None:
    model = nn.Linear(4, 10)
    pruner = Pruner(OneShot(0.5, 0), pattern=NofM(2, 4), targets=Targets(include=("bias",)))
    pruner.attach(model)
    pruner.after_step(0)
    assert int((model.bias == 0).sum()) == 5


def test_G13_n_of_m_with_a_scope_that_leaves_a_layer_too_dense_is_refused() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    with pytest.raises(
        ValueError, match=r"scope=ERK\(\) takes 1.weight to a sparsity of 0.0000 only, and pattern=NofM\(n=2, m=4\)"
    ):
        Pruner(OneShot(0.5, 0), pattern=NofM(2, 4), scope=ERK()).attach(model)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2)])
def test_G13_n_of_m_that_keeps_nothing_or_all(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=rf"n={n}, m={m}"):
        NofM(n, m)


def blocks_by_hand(scores: np.ndarray, height: int, width: int, pool: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one score per block and how many weights it holds, by a plain loop."""
    long = [n for n in scores.shape if n != 1] or [1]
    matrix = scores.reshape(long[0], -1)
    rows, columns = matrix.shape
    height, width = rows if height == -1 else height, columns if width == -1 else width
    found = [[matrix[i : i + height, j : j + width] for j in range(0, columns, width)] for i in range(0, rows, height)]
    reduce = np.mean if pool == "avg" else np.max
    return np.array([[reduce(b) for b in row] for row in found]), np.array([[b.size for b in row] for row in found])


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.sampled_from([(5, 2, 3, 3), (1, 6, 1, 1), (4, 1, 1, 5), (7,)]),
    ),
    height=st.sampled_from([-1, 1, 2, 3, 4, 20]),
    width=st.sampled_from([-1, 1, 2, 3, 4, 20]),
    pool=st.sampled_from(["avg", "max"]),
    seed=st.integers(0, 99),
)
def test_block_against_a_loop_by_hand(shape: tuple[int, ...], height: int, width: int, pool: Any, seed: int) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    block = Block(height, width, pool)
    expected, sizes = blocks_by_hand(scores.numpy(), height, width, pool)
    np.testing.assert_allclose(block.units(scores).numpy(), expected, rtol=1e-12)
    found = torch.as_tensor(block.weights_per_unit(scores.shape)).expand(expected.shape)
    np.testing.assert_array_equal(found.numpy(), sizes)


def test_block_means_of_half_precision_are_taken_in_single() -> None:
    assert Block(-1, -1).units(torch.full((64, 64), 60_000.0, dtype=torch.float16)).item() == 60_000.0
    assert Block(2, 2).units(torch.ones(4, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_G3_blocks_that_are_cut_off_count_as_what_they_hold() -> None:
    model = Bare((5, 5))
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[:, 4] = 0.5
        model.weight[4, :] = 0.5
    pruner = Pruner(OneShot(9 / 25, 0), pattern=Block(2, 2))
    pruner.attach(model)
    pruner.after_step(0)
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[:4, :4] = True
    assert torch.equal(pruner.masks["weight"].mask, expected)


@pytest.mark.parametrize("size", [0, -2, 1.5, True])
def test_G13_a_block_size_that_is_none(size: Any) -> None:
    with pytest.raises(ValueError, match="height="):
        Block(size, 1)
    with pytest.raises(ValueError, match="width="):
        Block(1, size)


def test_G13_an_unknown_pooling() -> None:
    pool: Any = "sum"
    with pytest.raises(ValueError, match="pool='sum' must be"):
        Block(1, 1, pool)


# Rows, columns, kernels

SIDES = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    st.tuples(st.integers(1, 6)),
)
SLICES: dict[type[Any], Any] = {
    Row: lambda w: [w[i] for i in range(w.shape[0])],
    Column: lambda w: [w[:, j] for j in range(w.shape[1])],
    Kernel: lambda w: [w[i, j] for i in range(w.shape[0]) for j in range(w.shape[1])],
}
"""A pattern's units of a weight, by hand."""


@pytest.mark.parametrize("kind", SLICES)
@given(shape=SIDES, seed=st.integers(0, 99))
def test_rows_columns_and_kernels_against_slices_by_hand(kind: type[Any], shape: tuple[int, ...], seed: int) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    slices = SLICES[kind](scores if scores.dim() > 1 else scores[:, None])
    pattern = kind()
    units = pattern.units(scores)
    np.testing.assert_allclose(units.flatten().numpy(), [float(part.mean()) for part in slices], rtol=1e-12)
    assert pattern.weights_per_unit(scores.shape) == slices[0].numel()
    keep = torch.rand(units.shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    expected = torch.zeros(shape, dtype=torch.bool)
    for part, kept in zip(
        SLICES[kind](expected if expected.dim() > 1 else expected[:, None]), keep.flatten(), strict=True
    ):
        part.fill_(bool(kept))
    assert torch.equal(pattern.expand(keep, scores.shape), expected)


@given(shape=SIDES.filter(lambda shape: shape[0] > 1), seed=st.integers(0, 99))
def test_rows_are_blocks_of_one_output_by_all_inputs(shape: tuple[int, ...], seed: int) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    block = Block(1, -1)
    torch.testing.assert_close(Row().units(scores)[:, None], block.units(scores))
    assert Row().weights_per_unit(scores.shape) == block.weights_per_unit(scores.shape)
    keep = torch.rand(shape[0]) > 0.5
    assert torch.equal(Row().expand(keep, scores.shape), block.expand(keep[:, None], scores.shape))


@pytest.mark.parametrize("pattern", [Row(), Column()])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_means_of_rows_and_columns_of_half_precision_are_taken_in_single(pattern: Any, dtype: torch.dtype) -> None:
    units = pattern.units(torch.full((64, 64), 60_000.0).to(dtype))
    assert units.dtype == torch.float32
    assert units.tolist() == [float(torch.tensor(60_000.0).to(dtype))] * 64


@pytest.mark.parametrize("pattern", [Row(), Column()])
@pytest.mark.parametrize("criterion", criteria_without_norm())
def test_G3_the_best_row_or_column_of_a_small_weight_outlives_all_others(pattern: Any, criterion: Any) -> None:
    """Ranked with a weight of far larger scores, and step by step, a weight is left with its best unit."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        model.get_parameter("1.weight").mul_(1e-3)
    pruner = Pruner(Polynomial(0.85, 0, 12, 2), pattern=pattern, criterion=criterion)
    pruner.attach(model)
    for step in range(13):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        pruner.after_step(step)
    alive = [int((pattern.units(mask.float()) > 0).sum()) for mask in masks_of(pruner).values()]
    assert min(alive) >= 1
    assert sum(alive) == 24 - round(0.85 * 24)


@pytest.mark.parametrize("pattern", [Row(), Column()])
def test_of_equal_rows_or_columns_the_first_is_protected(pattern: Any) -> None:
    assert pattern.protected(torch.tensor([1.0, 3.0, 3.0, 2.0])).tolist() == [False, True, False, False]


def test_rows_of_a_recurrent_weight_are_its_rows() -> None:
    model = nn.LSTM(5, 3)
    pruner = Pruner(OneShot(0.5, 0), pattern=Row(), scope=Uniform())
    pruner.attach(model)
    pruner.after_step(0)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        rows = pruner.masks[name].mask.float().mean(1)
        assert set(rows.tolist()) <= {0.0, 1.0}
        assert len(rows) == 12
    dropped = sum(int((~weight.mask).sum()) for weight in pruner.masks.values())
    assert abs(dropped - 48) <= 2


@pytest.mark.parametrize(("pattern", "dim"), [(Row(), 1), (Column(), 0)])
def test_rows_and_columns_of_a_transposed_convolution_are_its_outputs_and_inputs(pattern: Any, dim: int) -> None:
    layer = nn.ConvTranspose2d(8, 6, 3)
    norms = layer.weight.detach().abs().transpose(0, dim).flatten(1).sum(1)
    pruner = Pruner(OneShot(0.5, 0), pattern=pattern)
    pruner.attach(layer)
    pruner.after_step(0)
    kept = pruner.masks["weight"].mask.transpose(0, dim).flatten(1)
    assert torch.equal(kept.all(1), kept.any(1))
    assert torch.equal(kept.all(1), norms > norms.sort().values[len(norms) // 2 - 1])


def test_the_filters_of_smallest_weight_sum_go_in_every_layer() -> None:
    """Li et al. 2017, as their algorithm puts it."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3))
    sums = {n: model.get_parameter(n).detach().abs().sum((1, 2, 3)) for n in ("0.weight", "1.weight")}
    pruner = Pruner(OneShot(0.25, 0), criterion=FilterNorm(1), pattern=Row(), scope=Uniform())
    pruner.attach(model)
    pruner.after_step(0)
    for name, mask in masks_of(pruner).items():
        gone = (~mask).flatten(1).all(1)
        assert set(gone.nonzero().flatten().tolist()) == set(sums[name].argsort()[: len(gone) // 4].tolist())


@pytest.mark.parametrize("pattern", [Row(), Column()])
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("selection", ideas("selection"))
@pytest.mark.parametrize("sparsity", [0.9, 0.97, 1.0])
def test_no_scope_selection_or_sparsity_empties_a_weight_of_rows_or_columns(
    pattern: Any, scope: Any, selection: Any, sparsity: float
) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 3, 1))
    pruner = Pruner(Polynomial(sparsity, 0, 6, 2), pattern=pattern, scope=scope, selection=selection)
    pruner.attach(model)
    for step in (0, 2, 4, 6):
        pruner.after_step(step)
    assert all(mask.any() for mask in masks_of(pruner).values())
