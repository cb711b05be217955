"""Work on many pieces of memory in as many threads as torch uses: numpy lets others run while it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 1 << 18
"""Values handled at a time: their buffers stay in a core's cache."""
_PARALLEL_FROM = 1 << 20
_THREADS = 8
"""At most so many: beyond, handing out chunks takes as long as working on them."""
_PARTS = 4
"""Parts a thread, so that one which is held up does not hold up all."""


def in_threads(pieces: Sequence[T], sizes: Sequence[int], work: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """Call `work` on runs of the pieces, and return all it found, in order.

    Args:
        pieces: of the memory.
        sizes: how many values each holds.
        work: takes a run of pieces.
    """
    ends = list(accumulate(sizes))
    threads = min(_THREADS, torch.get_num_threads()) if ends and ends[-1] >= _PARALLEL_FROM else 1
    if threads == 1:
        return work(pieces)
    parts, cuts = threads * _PARTS, [0]
    for index, end in enumerate(ends):
        while len(cuts) <= parts and end * parts >= ends[-1] * len(cuts):  # one piece may be several parts long
            cuts.append(index + 1)
    with ThreadPoolExecutor(threads) as workers:
        found = workers.map(work, [pieces[a:b] for a, b in pairwise(cuts) if a < b])
        return [one for part in found for one in part]


def sums(arrays: Sequence[tuple[Any, ...]], work: Callable[..., int]) -> list[int]:
    """Call `work` on chunks of flat numpy arrays, in threads, and return for each tuple of them the sum of its answers.

    Args:
        arrays: tuples of arrays of one length, cut alike.
        work: takes one chunk of each array of a tuple.
    """
    lengths = [each[0].size for each in arrays]
    if sum(lengths) < _PARALLEL_FROM and max(lengths, default=0) <= CHUNK:  # a training step of a small net: no detours
        return [work(*each) for each in arrays]
    pieces: list[tuple[int, Any]] = [
        (index, tuple(array[at : at + CHUNK] for array in each))
        for index, each in enumerate(arrays)
        for at in range(0, each[0].size, CHUNK)
    ]
    found = [0] * len(arrays)
    sizes = [chunks[0].size for _, chunks in pieces]
    for index, answer in in_threads(pieces, sizes, lambda some: [(i, work(*chunks)) for i, chunks in some]):
        found[index] += answer
    return found
