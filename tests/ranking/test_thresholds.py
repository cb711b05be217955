"""Thresholds in float64 against values of every dtype: as if the values had been made float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_prune.ranking import above, extremes, is_finite, kth_smallest_value
from tests.helpers import FLOATS


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(
    numbers=st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_above_is_what_float64_says(dtype: torch.dtype, numbers: list[float], data: st.DataObject) -> None:
    values = [torch.tensor(numbers).to(dtype), torch.tensor([[0.1], [-0.0]]).to(dtype)]
    some = st.sampled_from([float(v) for t in values for v in t.flatten()])
    exact = data.draw(st.one_of(some, st.floats(-1e5, 1e5), st.just(0.0)))
    near = data.draw(st.sampled_from([exact, math.nextafter(exact, math.inf), math.nextafter(exact, -math.inf)]))
    for threshold in (near, abs(near)):
        for absolute in (False, True):
            ranked = [(v.abs() if absolute else v).double() for v in values]
            found = above(values, absolute, threshold, equal=False)
            assert all(torch.equal(f, r > threshold) for f, r in zip(found, ranked, strict=True))
            found = above(values, absolute, threshold, equal=True)
            assert all(torch.equal(f, r >= threshold) for f, r in zip(found, ranked, strict=True))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("absolute", [False, True])
def test_extremes_and_order_statistics(dtype: torch.dtype, absolute: bool) -> None:
    values = [torch.tensor([3.0, -5.0, 1.0]).to(dtype), torch.zeros(0, dtype=dtype), torch.tensor([2.0]).to(dtype)]
    assert extremes(values, absolute) == (
        [(0.0, 5.0), (0.0, 0.0), (0.0, 2.0)] if absolute else [(-5.0, 3.0), (0.0, 0.0), (2.0, 2.0)]
    )
    ordered = [1.0, 2.0, 3.0, 5.0] if absolute else [-5.0, 1.0, 2.0, 3.0]
    assert [kth_smallest_value(values, absolute, k) for k in (1, 2, 3, 4)] == ordered


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_seen(bad: float) -> None:
    values = torch.ones(4)
    assert bool(is_finite(values))
    assert bool(is_finite(torch.zeros(0)))
    values[2] = bad
    assert not bool(is_finite(values))
    for absolute in (False, True):
        assert not all(map(math.isfinite, extremes([values], absolute)[0]))
