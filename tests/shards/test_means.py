"""Means of units have the same bits whatever else there is: of a piece of a weight as of the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.shards import mean_of_rows, summed

DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 39), st.integers(1, 40), DTYPES, st.integers(0, 99))
def test_the_mean_of_a_row_does_not_depend_on_the_others(
    count: int, length: int, first: int, number: int, dtype: torch.dtype, seed: int
) -> None:
    rows = drawn((count, length), dtype, seed)
    start = min(first, count - 1)
    part = slice(start, start + number)
    assert torch.equal(mean_of_rows(rows[part].clone()), mean_of_rows(rows)[part])
    turned = rows.t().contiguous().t()  # as a weight lies whose inputs come first
    assert torch.equal(mean_of_rows(turned[part]), mean_of_rows(rows)[part])


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 39), st.integers(1, 40), DTYPES, st.integers(0, 99))
def test_the_sum_of_a_column_does_not_depend_on_the_others(
    length: int, count: int, first: int, number: int, dtype: torch.dtype, seed: int
) -> None:
    columns = drawn((length, count), dtype, seed)
    start = min(first, count - 1)
    part = slice(start, start + number)
    found = summed(columns, 0)
    assert torch.equal(summed(columns[:, part].clone(), 0), found[part])
    torch.testing.assert_close(found, columns.double().sum(0).to(found.dtype), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_single_long_row_is_added_up_like_one_of_many(threads: int) -> None:
    """Torch cuts the sum of all entries of a tensor up among threads."""
    before = torch.get_num_threads()
    rows = drawn((3, 200_000), torch.float32, 0)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(mean_of_rows(rows[1:2]), mean_of_rows(rows)[1:2])
    finally:
        torch.set_num_threads(before)
