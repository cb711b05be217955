"""Laws of every regularizer under conf/pruner/regularizer, and the formulas of those that are there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.regularizer.l1 import L1
from lightning_prune.regularizer.l2 import L2
from lightning_prune.regularizer.near_threshold import NearThreshold
from tests.helpers import FLOATS, ideas

REGULARIZERS = pytest.mark.parametrize("regularizer", ideas("regularizer"))
THRESHOLDS = st.sampled_from([-0.5, 0.0, 0.1, 0.7, 3.0])


def draw_weight(seed: int, shape: tuple[int, ...] = (5, 6)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gradient(regularizer: Any, weight: Tensor, threshold: float) -> Tensor:
    return torch.autograd.grad(regularizer(weight, threshold), weight)[0]


@REGULARIZERS
@given(seed=st.integers(0, 99), threshold=THRESHOLDS)
def test_a_scalar_that_is_finite_and_not_negative(regularizer: Any, seed: int, threshold: float) -> None:
    for shape in ((5, 6), (4, 3, 2, 2), (1, 1)):
        penalty = regularizer(draw_weight(seed, shape), threshold).detach()
        assert penalty.shape == ()
        assert float(penalty) >= 0.0
        assert torch.isfinite(penalty)


@REGULARIZERS
@given(threshold=THRESHOLDS)
def test_nothing_at_zero_weights(regularizer: Any, threshold: float) -> None:
    nothing = torch.zeros(4, 4, requires_grad=True)
    assert float(regularizer(nothing, threshold).detach()) == 0.0
    grad = gradient(regularizer, nothing, threshold)
    assert torch.isfinite(grad).all()
    assert float(grad.abs().max()) == 0.0


@REGULARIZERS
def test_it_does_something(regularizer: Any) -> None:
    assert float(gradient(regularizer, draw_weight(0), 0.5).abs().max()) > 0.0


@REGULARIZERS
@given(seed=st.integers(0, 99), threshold=THRESHOLDS)
def test_a_small_step_against_the_gradient_makes_it_no_larger(regularizer: Any, seed: int, threshold: float) -> None:
    weight = draw_weight(seed).detach().double().requires_grad_()
    grad = gradient(regularizer, weight, threshold)
    largest = float(grad.abs().max())
    moved = weight.detach() - (1e-6 / largest if largest else 0.0) * grad
    assert float(regularizer(moved, threshold)) <= float(regularizer(weight, threshold).detach())


@REGULARIZERS
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_dtype_of_the_weight_is_kept(regularizer: Any, dtype: torch.dtype) -> None:
    weight = draw_weight(3).detach().to(dtype).requires_grad_()
    assert gradient(regularizer, weight, 0.5).dtype == dtype


FORMULAS: list[tuple[Any, Callable[[Tensor, float], Tensor]]] = [
    (L1(0.25), lambda w, t: 0.25 * w.sign()),
    (L2(0.25), lambda w, t: 2 * 0.25 * w),
    (NearThreshold(0.25, reach=2.0), lambda w, t: 0.25 * w.sign() * (w.abs() < 2.0 * max(t, 0.0))),
]


@pytest.mark.parametrize(("regularizer", "formula"), FORMULAS, ids=["l1", "l2", "near_threshold"])
@given(seed=st.integers(0, 99), threshold=THRESHOLDS)
def test_G18_the_gradient_is_the_one_by_hand(
    regularizer: Any, formula: Callable[[Tensor, float], Tensor], seed: int, threshold: float
) -> None:
    weight = draw_weight(seed)
    torch.testing.assert_close(gradient(regularizer, weight, threshold), formula(weight.detach(), threshold))


@pytest.mark.parametrize("kind", [L1, L2, NearThreshold])
@pytest.mark.parametrize("strength", [-1.0, float("inf"), float("nan")])
def test_G13_a_strength_that_is_none(kind: type[Any], strength: float) -> None:
    with pytest.raises(ValueError, match="strength="):
        kind(strength)


@pytest.mark.parametrize("reach", [0.0, -1.0, float("inf"), float("nan")])
def test_G13_a_reach_that_is_none(reach: float) -> None:
    with pytest.raises(ValueError, match="reach="):
        NearThreshold(0.1, reach)
