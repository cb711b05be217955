"""Histograms whose bins are as wide as a power of two."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.page.histogram import Histogram, histogram, read

SIZES = st.integers(1, 400)
SCALES = st.sampled_from([1e-30, 1e-3, 1.0, 7.0, 1e20])


def drawn(seed: int, size: int, scale: float) -> Tensor:
    values = scale * torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[:: size // 3 + 1] = 0
    return values


@given(st.integers(0, 99), SIZES, SCALES)
def test_every_value_but_zeros_is_counted_in_the_bin_where_it_lies(seed: int, size: int, scale: float) -> None:
    values = drawn(seed, size, scale)
    found = histogram(values)
    left = values[values != 0]
    if found is None:
        assert not len(left)
        return
    assert sum(found.counts) == len(left)
    assert len(found.counts) <= 66
    inside = range(1, len(found.counts) - 1)  # the outermost hold what lies further out, too
    edges = found.edges
    assert [found.counts[i] for i in inside] == [
        int(((left >= edges[i]) & (left < edges[i + 1])).sum()) for i in inside
    ]


@given(st.integers(0, 99), SIZES, st.integers(0, 70))
def test_wider_bins_are_those_that_one_would_have_counted(seed: int, size: int, wider: int) -> None:
    found = histogram(drawn(seed, size, 1.0) + 0.001)
    assert found is not None
    coarse = found.coarser(found.exponent + wider)
    assert sum(coarse.counts) == sum(found.counts)
    assert set(coarse.edges) & set(found.edges) or wider
    places = [(found.first + i) * found.width for i, n in enumerate(found.counts) for _ in range(n)]
    counts = [sum(math.floor(p / coarse.width) == coarse.first + i for p in places) for i in range(len(coarse.counts))]
    assert list(coarse.counts) == counts


def test_a_value_far_out_does_not_hide_the_others() -> None:
    values = torch.cat([drawn(0, 1000, 1.0), torch.tensor([1e6])])
    found = histogram(torch.cat([values] * 1 + [drawn(1, 100_000, 1.0)]))
    assert found is not None
    assert found.counts[-1] == 1
    assert found.edges[-1] < 1e6


@pytest.mark.parametrize("values", [torch.zeros(5), torch.tensor([math.nan, math.inf, 0.0]), torch.empty(0)])
def test_nothing_to_count(values: Tensor) -> None:
    assert histogram(values) is None


def test_one_value_alone() -> None:
    found = histogram(torch.full((7,), 0.3))
    assert found is not None
    assert [n for n in found.counts if n] == [7]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves(dtype: torch.dtype) -> None:
    found = histogram(torch.tensor([1.0, -1.0, 0.5], dtype=dtype))
    assert found is not None
    assert sum(found.counts) == 3


def test_it_comes_back_from_plain_values() -> None:
    found = Histogram(-3, -2, (1, 0, 5))
    assert read("here", found.to_dict() | {"counts": [1, 0, 5]}) == found


@pytest.mark.parametrize(
    "change", [{"counts": []}, {"counts": [-1]}, {"exponent": 1.5}, {"first": None}, {"counts": 3}]
)
def test_a_damaged_one_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="here"):
        read("here", {"exponent": 0, "first": 0, "counts": [1]} | change)
