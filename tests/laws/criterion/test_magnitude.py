"""Magnitude scales with the weight, whatever its sign."""

import pytest
import torch

from lightning_prune.criterion import Magnitude
from tests.helpers import FLOATS, same
from tests.laws.criterion.weights import weight_and_grad


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_magnitude_scales_with_the_weight(dtype: torch.dtype) -> None:
    weight, _ = weight_and_grad((8, 8), dtype)
    assert same(Magnitude()(weight * 4, None), Magnitude()(weight, None) * 4)
    assert same(Magnitude()(-weight, None), Magnitude()(weight, None))
