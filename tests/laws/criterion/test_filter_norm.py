"""Filter norms by hand, of half precision too."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.criterion import FilterNorm
from tests.laws.criterion.weights import SHAPES, weight_and_grad


@given(p=st.sampled_from([1, 2]), shape=st.sampled_from([*SHAPES, (6,)]), seed=st.integers(0, 99))
def test_filter_norm_by_hand(p: int, shape: tuple[int, ...], seed: int) -> None:
    weight, _ = weight_and_grad(shape, torch.float64, seed)
    expected = [(np.abs(output.numpy()) ** p).sum() ** (1 / p) for output in weight]
    np.testing.assert_allclose(FilterNorm(p)(weight, None).reshape(shape[0], -1)[:, 0].numpy(), expected)


def test_filter_norms_of_half_precision_do_not_overflow() -> None:
    weight = torch.full((2, 64), 6e4, dtype=torch.float16)
    assert float(FilterNorm(1)(weight, None)[0, 0]) == pytest.approx(64 * 6e4)
    assert float(FilterNorm(2)(weight, None)[0, 0]) == pytest.approx(8 * 6e4)


@pytest.mark.parametrize("p", [0, 3, -1, 1.5])
def test_G13_a_filter_norm_that_is_none(p: Any) -> None:
    with pytest.raises(ValueError, match=f"p={p}"):
        FilterNorm(p)
