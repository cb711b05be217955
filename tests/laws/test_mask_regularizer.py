"""Laws of every mask regularizer under conf/pruner/mask_regularizer; single ones are in tests/laws/mask_regularizer."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import ideas
from tests.laws.mask_regularizer.probabilities import P, probabilities

REGULARIZERS = pytest.mark.parametrize("regularizer", ideas("mask_regularizer"))


@REGULARIZERS
@given(values=P, asked=st.floats(0, 1))
def test_a_finite_scalar_with_a_gradient(regularizer: Any, values: list[float], asked: float) -> None:
    p = probabilities(values)
    value = regularizer(p, (1 - p).mean(), asked)
    assert value.shape == ()
    (grad,) = torch.autograd.grad(value, p)
    assert torch.isfinite(value)
    assert torch.isfinite(grad).all()
