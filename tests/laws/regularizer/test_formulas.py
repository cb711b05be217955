"""The gradients of penalties on weights are those by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.regularizer import L1, L2, GroupLasso, NearThreshold
from tests.laws.regularizer.gradients import THRESHOLDS, draw_weight, gradient

FORMULAS: list[tuple[Any, Callable[[Tensor, float], Tensor]]] = [
    (L1(0.25), lambda w, t: 0.25 * w.sign()),
    (L2(0.25), lambda w, t: 2 * 0.25 * w),
    (NearThreshold(0.25, reach=2.0), lambda w, t: 0.25 * w.sign() * (w.abs() < 2.0 * max(t, 0.0))),
    (GroupLasso(0.25), lambda w, t: 0.25 * 6**0.5 * w / w.square().sum(1, keepdim=True).sqrt()),
]


@pytest.mark.parametrize(("regularizer", "formula"), FORMULAS, ids=["l1", "l2", "near_threshold", "group_lasso"])
@given(seed=st.integers(0, 99), threshold=THRESHOLDS)
def test_G18_the_gradient_is_the_one_by_hand(
    regularizer: Any, formula: Callable[[Tensor, float], Tensor], seed: int, threshold: float
) -> None:
    weight = draw_weight(seed)
    torch.testing.assert_close(gradient(regularizer, weight, threshold), formula(weight.detach(), threshold))


@pytest.mark.parametrize("reach", [0.0, -1.0, float("inf"), float("nan")])
def test_G13_a_reach_that_is_none(reach: float) -> None:
    with pytest.raises(ValueError, match="reach="):
        NearThreshold(0.1, reach)
