"""Laws of every regularizer under conf/pruner/regularizer; single ones are in tests/laws/regularizer."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.regularizer import L1, L2, GroupLasso, Growing, Moment, NearThreshold, NormL1, SitedRegularizer
from tests.helpers import FLOATS, ideas
from tests.laws.regularizer.gradients import THRESHOLDS, draw_weight, gradient

REGULARIZERS = pytest.mark.parametrize("regularizer", ideas("regularizer"))


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
    if isinstance(regularizer, SitedRegularizer):
        going = torch.ones(5, 6, dtype=torch.bool)
        found = [gradient(regularizer.at(Moment(role, 0.5, going)), draw_weight(0), 0.5) for role in ("weight", "norm")]
        assert max(float(grad.abs().max()) for grad in found) > 0.0
        return
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


@pytest.mark.parametrize("kind", [L1, L2, NearThreshold, GroupLasso, Growing, NormL1])
@pytest.mark.parametrize("strength", [-1.0, float("inf"), float("nan")])
def test_G13_a_strength_that_is_none(kind: type[Any], strength: float) -> None:
    with pytest.raises(ValueError, match="strength="):
        kind(strength)
