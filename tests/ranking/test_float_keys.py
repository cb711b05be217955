"""Integers that order like floats: for every dtype, for every kind of float."""

from math import isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.ranking import float_keys
from tests.helpers import FLOATS

DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)
VALUES = st.lists(st.floats(width=32), min_size=1, max_size=30)


def finite(values: list[float], dtype: torch.dtype) -> Tensor:
    tensor = torch.tensor([0.0 if isnan(v) else v for v in values], dtype=torch.float64).to(dtype)
    return tensor.nan_to_num(posinf=torch.finfo(dtype).max, neginf=torch.finfo(dtype).min)


@DTYPES
@given(values=VALUES)
def test_keys_order_like_the_floats(dtype: torch.dtype, values: list[float]) -> None:
    floats = finite(values, dtype)
    for absolute in (False, True):
        scores = floats.abs() if absolute else floats
        keys = float_keys.keys(floats, absolute)
        assert keys.dtype == float_keys.INTEGER_OF[floats.element_size()]
        for compare in (torch.lt, torch.eq):
            expected = compare(scores[:, None].double(), scores[None, :].double())
            assert torch.equal(compare(keys[:, None], keys[None, :]), expected)
        for key, score in zip(keys.tolist(), scores.tolist(), strict=True):
            assert float_keys.value_of(key, dtype) == score


@DTYPES
def test_what_is_not_finite_lies_beyond_the_highest(dtype: torch.dtype) -> None:
    top = float_keys.highest(dtype)
    assert float_keys.value_of(top, dtype) == torch.finfo(dtype).max
    keys = float_keys.keys(torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype), False)
    assert keys.tolist() == [top, -top]
    for value in (float("inf"), float("nan"), -float("inf"), -float("nan")):
        bad = torch.tensor([value], dtype=dtype)
        assert int(float_keys.keys(bad, True)) > top
        assert abs(int(float_keys.keys(bad, False))) > top


@DTYPES
def test_minus_zero_is_zero(dtype: torch.dtype) -> None:
    assert float_keys.keys(torch.tensor([-0.0, 0.0], dtype=dtype), False).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
@given(data=st.data())
@settings(max_examples=25)
def test_kth_smallest_is_what_sorting_finds(dtype: torch.dtype, data: st.DataObject) -> None:
    info = torch.iinfo(dtype)
    number = st.one_of(st.integers(info.min, info.max), st.sampled_from([info.min, -1, 0, 1, info.max]))
    parts = [
        torch.tensor(part, dtype=dtype)
        for part in data.draw(st.lists(st.lists(number, min_size=1), min_size=1, max_size=3))
    ]
    everything = np.sort(np.concatenate([part.numpy() for part in parts]))
    k = data.draw(st.integers(1, everything.size))
    assert float_keys.kth_smallest(parts, k) == everything[k - 1]


def test_bits_share_the_memory() -> None:
    values = torch.ones(3)
    float_keys.bits(values).zero_()
    assert values.tolist() == [0.0, 0.0, 0.0]
