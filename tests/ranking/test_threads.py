"""Work in threads is handed out whole, once and in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.ranking import count_nonzero, threads
from lightning_prune.ranking.threads import CHUNK, in_threads


@given(st.lists(st.integers(0, 3_000_000), max_size=40), st.integers(1, 12))
def test_every_piece_is_handed_out_once_and_in_order(sizes: list[int], number: int) -> None:
    runs: list[int] = []

    def work(pieces: Sequence[int]) -> list[int]:
        runs.append(len(pieces))
        return list(pieces)

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        assert in_threads(range(len(sizes)), sizes, work) == list(range(len(sizes)))
    finally:
        torch.set_num_threads(before)
    assert sum(runs) == len(sizes)
    if sum(sizes) >= threads._PARALLEL_FROM and number > 1:
        most = max(sum(sizes) / (4 * min(8, number)) + max(sizes), 1)
        assert len(runs) >= min(2, sum(sizes) / most // 1), "more than one part"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0,), (), (3, 5), (CHUNK + 7,), (5, CHUNK // 2)])
def test_entries_that_are_not_zero_are_counted(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape).to(dtype)
    flat = values.view(-1)
    for at, odd in enumerate((0.0, -0.0, float("nan"), float("inf"), float("-inf"))):
        flat[at::11] = odd
    expected = int((values != 0).sum())
    swapped = values.transpose(0, -1) if values.dim() > 1 else values
    assert count_nonzero([values, swapped]) == [expected, expected]
