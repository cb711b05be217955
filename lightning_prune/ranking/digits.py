"""The k-th smallest of many integers, by counting digits: on any device, and read by the host once a digit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.shards import Kind, total

_DIGIT = 16
_LEAST_DIGIT = 8
_SHARE = 8
"""Numbers for each counter where many runs are counted at once: their counters take half a byte a number."""


@dataclass(frozen=True)
class Run:
    """Integers among which one is looked for.

    Attributes:
        chunks: each makes a part of them, flat and in memory of its own, which is written to.
        size: how many there are in all, on all ranks.
        k: which of them is looked for, from 1.
        kinds: of each chunk, the groups of ranks over which it adds up with others; empty where all lies here.
    """

    chunks: Sequence[Callable[[], Tensor]]
    size: int
    k: int
    kinds: Sequence[Kind] = ()


@dataclass(frozen=True)
class Found:
    """The k-th smallest of a run: how many are less, and the most that can be equal to it."""

    value: int
    less: int
    equal: int


def kth_of_each(
    runs: Sequence[Run], low: int, width: int, among: Sequence[tuple[torch.device, Kind]] = ()
) -> list[Found]:
    """Return the k-th smallest of each run, in linear time, with nothing concatenated.

    Counts a digit at a time, most significant first. Numbers outside of the interval that the digits before have left
    count at its ends: so k stays what it is, and no number has to be left out.

    Args:
        runs: integers of one dtype.
        low: what no number is below.
        width: no number is above `low` + 2^width - 1.
        among: devices and kinds of chunks on any rank; a rank without such a chunk takes part in their sums as well.
    """
    counters = max(1 << _DIGIT, sum(run.size for run in runs) // _SHARE) // len(runs)
    digit = max(_LEAST_DIGIT, min(_DIGIT, counters.bit_length() - 1))
    lows, found = [low] * len(runs), [Found(low, 0, run.size) for run in runs]
    ks = torch.tensor([[run.k] for run in runs])
    left = width
    while left:
        shift = max(0, left - digit)
        clamped = left < width
        cumulated = _counted(runs, lows, left, shift, clamped, among).cumsum(1)
        bins = torch.searchsorted(cumulated, ks).flatten().tolist()
        for r, bin_ in enumerate(bins):
            less = int(cumulated[r, bin_ - 1]) if bin_ else found[r].less
            lows[r] += bin_ << shift
            found[r] = Found(lows[r], less, int(cumulated[r, bin_]) - less)
        left = shift
    return found


def _counted(
    runs: Sequence[Run],
    lows: Sequence[int],
    width: int,
    shift: int,
    clamped: bool,
    among: Sequence[tuple[torch.device, Kind]],
) -> Tensor:
    """Return how many numbers of each run have each digit, on the CPU."""
    many = max(run.size for run in runs) >= 1 << 31
    shape, dtype = (len(runs), 1 << (width - shift)), torch.int64 if many else torch.int32
    tables = {place: torch.zeros(shape, dtype=dtype, device=place[0]) for place in among}
    for r, (run, low) in enumerate(zip(runs, lows, strict=True)):
        for c, make in enumerate(run.chunks):
            numbers = make()
            if clamped:
                numbers.clamp_(low, low + (1 << width) - 1)
            if shift:
                numbers >>= shift
            if numbers.element_size() < 4:
                numbers = numbers.int()
            if low >> shift:
                numbers -= low >> shift
            place = numbers.device, run.kinds[c] if run.kinds else ()
            table = tables.get(place)
            if table is None:
                table = tables[place] = torch.zeros(shape, dtype=dtype, device=numbers.device)
            # Neither bincount nor an index of bools, which wait for the device; integers add up in any order.
            table[r].index_add_(0, numbers, table.new_ones(1).expand(numbers.numel()))
    return total([(kind, table) for (_, kind), table in tables.items()])
