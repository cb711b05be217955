"""Work on many pieces of memory in as many threads as torch uses: numpy lets others run while it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import TypeVar

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
        if end * parts >= ends[-1] * len(cuts):
            cuts.append(index + 1)
            while end * parts >= ends[-1] * len(cuts) and len(cuts) <= parts:  # one piece may be several parts long
                cuts.append(index + 1)
    with ThreadPoolExecutor(threads) as workers:
        found = workers.map(work, [pieces[a:b] for a, b in pairwise(cuts) if a < b])
        return [one for part in found for one in part]
