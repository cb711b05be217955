"""Rows, columns and kernels against slices by hand, and that no weight loses its last row or column."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_prune.criterion import FilterNorm
from lightning_prune.pattern import Block, Column, Kernel, Row
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Uniform
from tests.helpers import criteria_without_norm, ideas, masks_of, pruned_once

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
    pruner = pruned_once(model, 0.5, pattern=Row(), scope=Uniform())
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
    pruner = pruned_once(layer, 0.5, pattern=pattern)
    kept = pruner.masks["weight"].mask.transpose(0, dim).flatten(1)
    assert torch.equal(kept.all(1), kept.any(1))
    assert torch.equal(kept.all(1), norms > norms.sort().values[len(norms) // 2 - 1])


def test_the_filters_of_smallest_weight_sum_go_in_every_layer() -> None:
    """Li et al. 2017, as their algorithm puts it."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3))
    sums = {n: model.get_parameter(n).detach().abs().sum((1, 2, 3)) for n in ("0.weight", "1.weight")}
    pruner = pruned_once(model, 0.25, criterion=FilterNorm(1), pattern=Row(), scope=Uniform())
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
