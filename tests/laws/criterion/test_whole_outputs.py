"""What holds for every criterion that scores whole outputs: filter norms, geometric median, k-means, norm scales."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.criterion import FilterNorm, GeometricMedian, KMeans, NormScale
from lightning_prune.pattern import Row
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot
from tests.laws.criterion.weights import SHAPES, linear, scored, weight_and_grad

FOR_OUTPUTS = [FilterNorm(1), FilterNorm(2), GeometricMedian(), KMeans(), NormScale()]


@pytest.mark.parametrize("criterion", FOR_OUTPUTS, ids=lambda c: f"{c}".partition(", norm")[0])
@pytest.mark.parametrize("shape", [*SHAPES, (7,)], ids=str)
def test_scores_of_whole_outputs_are_the_same_along_each(criterion: Any, shape: tuple[int, ...]) -> None:
    scores = scored(criterion, *weight_and_grad(shape))
    rows = scores.reshape(shape[0], -1)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    torch.testing.assert_close(Row().units(scores), rows[:, 0])


@pytest.mark.parametrize("criterion", [FilterNorm(1), FilterNorm(2), GeometricMedian()], ids=str)
@given(seed=st.integers(0, 99))
def test_outputs_in_another_order_score_as_before(criterion: Any, seed: int) -> None:
    weight, _ = weight_and_grad((9, 2, 3), seed=seed)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(criterion(weight[order], None), criterion(weight, None)[order])


@pytest.mark.parametrize("criterion", FOR_OUTPUTS[:-1], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_G13_weights_that_are_not_finite_are_named(criterion: Any, value: float) -> None:
    layer = linear(weight_and_grad((6, 4))[0])
    pruner = Pruner(OneShot(0.5, 1), criterion=criterion, pattern=Row())
    pruner.attach(layer)
    with torch.no_grad():
        layer.weight[2, 1] = value
    with pytest.raises(ValueError, match="score of 'weight' is not finite"):
        pruner.after_step(1)
