"""What a bracket must hold so that it can be told who stays in any case: with numpy, as the bracket itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lightning_prune.ranking.spared import Spared

Array = np.ndarray[Any, np.dtype[Any]]


def shortfall(samples: Sequence[Array], spared: Sequence[Spared], scale: float, low: int, high: int) -> int:
    """Return how many more stay, as samples show it, than lie above a boundary between two keys.

    Args:
        samples: keys of some contenders of each tensor.
        spared: who stays.
        scale: how many contenders one of a sample stands for.
        low: a key below the boundary.
        high: a key above it.
    """
    more = 0.0
    for run in spared:
        keys = samples[run.first : run.end]
        above = sum(int(np.count_nonzero(k > low)) + int(np.count_nonzero(k > high)) for k in keys) / 2
        more += max(0.0, run.least - scale * above)
    return round(more)


def lower_ends(
    samples: Sequence[Array], spared: Sequence[Spared], scale: float, low: int, deviations: float
) -> list[int]:
    """Return for each tensor the key above which those that stay may be found: `low`, or less where it must be.

    Args:
        samples: keys of some contenders of each tensor.
        spared: who stays.
        scale: how many contenders one of a sample stands for.
        low: a key below the boundary of all.
        deviations: how many standard deviations below what the sample shows.
    """
    ends = [low] * len(samples)
    for run in spared:
        keys = samples[run.first : run.end]
        size = sum(k.size for k in keys)
        share = min(1.0, run.least / (scale * size)) if size else 1.0
        rank = math.ceil(share * size + deviations * math.sqrt(size * share * (1.0 - share)) + 4.0)
        if not run.least or sum(int(np.count_nonzero(k > low)) for k in keys) >= rank:
            continue
        if rank > size:
            end = int(np.iinfo(samples[0].dtype).min)
        else:  # all that equal the value found lie above
            end = min(low, int(np.partition(np.concatenate(keys), size - rank)[size - rank]) - 1)
        ends[run.first : run.end] = [end] * (run.end - run.first)
    return ends


def set_aside(inside: Array, sizes: Sequence[tuple[int, int, int]], spared: Sequence[Spared]) -> Array | None:
    """Return which of the keys inside a bracket stay in any case, or None where too few were found to tell.

    Args:
        inside: the keys, in the tensors' order.
        sizes: in the same order the index of a tensor, how many of its contenders are above the bracket's lower end,
            and how many of those are inside.
        spared: who stays, in the tensors' order.
    """
    safe = np.zeros(inside.size, np.bool_)
    for run, start, end, kept in _runs(sizes, spared):
        if kept < run.least:
            return None
        missing = run.least - (kept - (end - start))
        if missing > 0:
            keys = inside[start:end]
            last = np.partition(keys, keys.size - missing)[keys.size - missing]
            safe[start:end] = keys > last
            equal = start + np.flatnonzero(keys == last)
            safe[equal[: missing - int(np.count_nonzero(safe[start:end]))]] = True
    return safe


def _runs(sizes: Sequence[tuple[int, int, int]], spared: Sequence[Spared]) -> Iterator[tuple[Spared, int, int, int]]:
    """Yield those that stay with the keys of theirs, from and to, and how many are above the lower end."""
    ends = np.cumsum([0, *(size for _, _, size in sizes)])
    tensors = np.array([index for index, _, _ in sizes])
    kept = np.cumsum([0, *(kept for _, kept, _ in sizes)])
    for run in spared:
        a, b = np.searchsorted(tensors, (run.first, run.end))
        yield run, int(ends[a]), int(ends[b]), int(kept[b] - kept[a])
