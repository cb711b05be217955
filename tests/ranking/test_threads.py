"""Work in threads is handed out whole, once and in order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from threading import Event

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.ranking import count_nonzero, threads
from lightning_prune.ranking.threads import CHUNK, in_threads


@contextmanager
def torch_threads(number: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@given(st.lists(st.integers(0, 3_000_000), max_size=40), st.integers(1, 12))
def test_every_piece_is_handed_out_once_and_in_order(sizes: list[int], number: int) -> None:
    runs: list[list[int]] = []

    def work(pieces: Iterable[int]) -> list[int]:
        runs.append([])
        for piece in pieces:
            runs[-1].append(piece)
        return [-piece for piece in runs[-1]] if runs[-1] else []

    with torch_threads(number):
        assert in_threads(range(len(sizes)), sizes, work) == [-piece for piece in range(len(sizes))]
    assert sorted(piece for run in runs for piece in run) == list(range(len(sizes)))
    many = sum(sizes) >= threads._PARALLEL_FROM
    assert len(runs) == (max(1, min(8, number, len(sizes))) if many else 1)


def test_who_is_done_takes_the_next_piece() -> None:
    """The first piece takes until all others are done."""
    others, done = set(range(1, 9)), Event()

    def work(pieces: Iterable[int]) -> list[int]:
        found: list[int] = []
        for piece in pieces:
            if piece == 0:
                assert done.wait(20)
            others.discard(piece)
            if not others:
                done.set()
            found.append(piece)
        return found

    with torch_threads(2):
        assert in_threads(range(9), [1 << 20] * 9, work) == list(range(9))


@pytest.mark.parametrize("number", [1, 2, 5])
def test_what_went_wrong_at_the_first_piece_is_raised(number: int) -> None:
    def work(pieces: Iterable[int]) -> list[int]:
        for piece in pieces:
            if piece in (3, 4, 7):
                time.sleep(0.05 if piece == 3 else 0)  # the others are there first
                raise ValueError(f"piece {piece}")
        return []

    with torch_threads(number), pytest.raises(ValueError, match=r"^piece 3$"):
        in_threads(range(12), [1 << 20] * 12, work)


def test_work_that_answers_nothing_gives_nothing() -> None:
    def work(pieces: Iterable[int]) -> list[int]:
        return [piece for piece in pieces if piece < 0]

    with torch_threads(3):
        assert in_threads(range(12), [1 << 20] * 12, work) == []


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
