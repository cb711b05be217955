"""Laws of every pattern under conf/pruner/pattern, and the formulas of those that are there."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune.pattern.block import Block
from lightning_prune.pattern.n_of_m import NofM
from lightning_prune.protocols import Layer
from lightning_prune.pruner import Pruner
from lightning_prune.schedule.one_shot import OneShot
from lightning_prune.schedule.polynomial import Polynomial
from lightning_prune.scope.erk import ERK
from lightning_prune.targets import Targets
from tests.helpers import conv_net, ideas, masks_of, pattern_at

PATTERNS = pytest.mark.parametrize("pattern", ideas("pattern"))
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
@pytest.mark.parametrize("criterion", ideas("criterion"))
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
                largest_unit(pattern_at(pattern, name, step), canonical(name, now[name]).shape) for name in pool.names
            )
            assert abs(dropped - pool.drop) <= largest / 2
        for name, mask in now.items():
            at = pattern_at(pattern, name, step)
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


@pytest.mark.parametrize("criterion", ideas("criterion"))
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
