"""Work on many pieces of memory in as many threads as torch uses: numpy lets others run while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 1 << 18
"""Values handled at a time: their buffers stay in a core's cache."""
_PARALLEL_FROM = 1 << 20
_THREADS = 8
"""At most so many: beyond, handing out chunks takes as long as working on them."""


def number() -> int:
    """Return in how many threads there is to be worked at a time."""
    return min(_THREADS, torch.get_num_threads())


def in_threads(pieces: Sequence[T], sizes: Sequence[int], work: Callable[[Iterable[T]], list[R]]) -> list[R]:
    """Have each thread call `work` on pieces that it takes one by one, and return all that was found, in order.

    Args:
        pieces: of the memory.
        sizes: how many values each holds.
        work: takes pieces as they come, and returns an answer for each of them, or none at all.

    Raises:
        Exception: what `work` came to; of several threads, at the first piece.
    """
    total = sum(sizes)
    threads = min(number(), len(pieces)) if total >= _PARALLEL_FROM else 1
    if threads <= 1:
        return work(pieces)
    waiting = iter(enumerate(pieces))  # whoever has done one takes the next, so none is held up by another
    takers = [_Taker(waiting) for _ in range(threads)]
    with ThreadPoolExecutor(threads - 1) as others:
        others.map(lambda taker: taker.run(work), takers[1:])
        takers[0].run(work)
    failed = [(taker.taken, taker.error) for taker in takers if taker.error is not None]
    if failed:
        raise min(failed, key=lambda pair: pair[0][-1:])[1]
    found = [pair for taker in takers for pair in zip(taker.taken, taker.found, strict=bool(taker.found))]
    return [answer for _, answer in sorted(found, key=lambda pair: pair[0])]


class _Taker(Generic[T, R]):
    """One thread's share: the numbers of the pieces that it took, and what came of them."""

    def __init__(self, waiting: Iterator[tuple[int, T]]) -> None:
        self.waiting = waiting
        self.taken: list[int] = []
        self.found: list[R] = []
        self.error: Exception | None = None

    def run(self, work: Callable[[Iterable[T]], list[R]]) -> None:
        try:
            self.found = work(self._take())
        except Exception as error:  # the other threads' pieces come first
            self.error = error

    def _take(self) -> Iterator[T]:
        for number, piece in self.waiting:
            self.taken.append(number)
            yield piece


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
