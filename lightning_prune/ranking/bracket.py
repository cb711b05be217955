"""The boundary of many values, within a bracket that a sample draws: on the CPU, with numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_prune.ranking import float_keys
from lightning_prune.ranking.flags import where_only
from lightning_prune.ranking.spared import Spared
from lightning_prune.ranking.spared_bracket import lower_ends, set_aside, shortfall
from lightning_prune.ranking.threads import CHUNK, in_threads

Array = np.ndarray[Any, np.dtype[Any]]

_SAMPLE = 1 << 17
_DEVIATIONS = (2.5, 8.0)
"""How wide a bracket is, at the first try and at the next: a narrow one leaves less to put right, but may miss."""


@dataclass(frozen=True)
class _Span:
    """A run of one tensor's values, flattened."""

    index: int
    raw: Array
    contenders: Array | None
    keep: Array


@dataclass(frozen=True)
class _Inside:
    """What one pass over a span found: how many contenders are above the bracket's lower end, and those within it."""

    span: _Span
    kept: int
    positions: Array
    keys: Array


def by_bracket(
    values: Sequence[Tensor],
    contenders: Sequence[Tensor | None],
    drop: int,
    absolute: bool,
    contending: int,
    spared: Sequence[Spared] = (),
) -> tuple[list[Tensor], int] | None:
    """Return masks and boundary key, or None where no bracket drawn from a sample holds the boundary."""
    raws = [float_keys.bits(v.contiguous()).numpy().reshape(-1) for v in values]
    takes_part = [None if c is None else c.contiguous().numpy().reshape(-1) for c in contenders]
    masks = [torch.empty(v.shape, dtype=torch.bool) for v in values]
    keeps = [m.numpy().reshape(-1) for m in masks]
    spans = [
        _Span(i, r[a : a + CHUNK], None if c is None else c[a : a + CHUNK], k[a : a + CHUNK])
        for i, (r, c, k) in enumerate(zip(raws, takes_part, keeps, strict=True))
        for a in range(0, r.size, CHUNK)
    ]
    sizes = [span.raw.size for span in spans]
    dtype = values[0].dtype
    samples = _samples(raws, takes_part, absolute)
    sample = np.concatenate(samples)
    scale = contending / max(1, sample.size)
    for deviations in _DEVIATIONS:
        low, high = _bracket(sample, drop / contending, deviations)
        more = shortfall(samples, spared, scale, low, high)
        if more:
            low, high = _bracket(sample, min(1.0, (drop + more) / contending), deviations)
        lows = lower_ends(samples, spared, scale, low, deviations)
        found = in_threads(spans, sizes, lambda part, lows=lows, high=high: _look(part, lows, high, absolute, dtype))
        boundary = _settle(found, drop - (contending - sum(f.kept for f in found)), low, spared)
        if boundary is not None:
            return masks, boundary
    return None


def _settle(found: list[_Inside], missing: int, low: int, spared: Sequence[Spared]) -> int | None:
    """Drop the `missing` smallest of the values inside the bracket, and return the largest that went.

    None, and nothing is dropped, where these are not all inside.
    """
    inside = np.concatenate([f.keys for f in found])
    safe = set_aside(inside, [(f.span.index, f.kept, f.keys.size) for f in found], spared) if spared else None
    if spared and safe is None:
        return None
    free = inside if safe is None else inside[~safe]
    if not 0 < missing <= free.size:
        return None
    boundary, _ = _of_ranks(free, missing - 1, missing - 1)
    if boundary <= low:  # what was not collected may be larger
        return None
    goes, equal = inside <= boundary, inside == boundary
    if safe is not None:
        goes &= ~safe
        equal &= ~safe
    goes[np.flatnonzero(equal)[: int(np.count_nonzero(goes)) - missing]] = False  # of equal ones, the first few stay
    stays = np.split(~goes, np.cumsum([f.keys.size for f in found])[:-1])
    in_threads(list(zip(found, stays, strict=True)), [f.span.raw.size for f in found], _put)
    return boundary


def _put(some: Iterable[tuple[_Inside, Array]]) -> list[None]:
    for inside, stay in some:
        inside.span.keep[inside.positions] = stay
    return []


def _samples(raws: list[Array], takes_part: list[Array | None], absolute: bool) -> list[Array]:
    """Return the keys of some contenders of each tensor, the same share of all."""
    sizes = [r.size for r in raws]
    size = sum(sizes)
    stride = max(1, min(16, size // 4096), size // _SAMPLE)

    def draw(some: Iterable[tuple[Array, Array | None]]) -> list[Array]:
        return [_keys(r[::stride], absolute)[slice(None) if c is None else c[::stride]] for r, c in some]

    return in_threads(list(zip(raws, takes_part, strict=True)), sizes, draw)


def _bracket(sample: Array, share: float, deviations: float) -> tuple[int, int]:
    """Return two keys, that many standard deviations from the share-quantile of the contenders as a sample shows it.

    The quantile is taken to be above the first key, and at most the other.
    """
    info = np.iinfo(sample.dtype)
    spread = deviations * math.sqrt(sample.size * share * (1.0 - share)) + 4.0
    below, above = math.floor(share * sample.size - spread), math.ceil(share * sample.size + spread)
    low, high = _of_ranks(sample, max(0, below), min(above, sample.size - 1)) if sample.size else (0, 0)
    # All that equal the value found lie inside, so one less at the lower end.
    return low - 1 if below >= 0 else int(info.min), high if above < sample.size else int(info.max)


def _of_ranks(keys: Array, first: int, last: int) -> tuple[int, int]:
    """Return the keys of two ranks, not far apart, that they would have if sorted; ranks count from 0."""
    coarse = np.sort(keys[:: max(1, keys.size // 4096)])
    share, margin = coarse.size / keys.size, 3.0 * math.sqrt(coarse.size)
    low = coarse[max(0, math.floor(first * share - margin))]
    high = coarse[min(coarse.size - 1, math.ceil(last * share + margin))]
    near, skipped = keys[(keys >= low) & (keys <= high)], int(np.count_nonzero(keys < low))
    if first < skipped or last >= skipped + near.size:
        near, skipped = keys, 0
    ordered = np.partition(near, (first - skipped, last - skipped))
    return int(ordered[first - skipped]), int(ordered[last - skipped])


def _keys(raw: Array, absolute: bool, out: Array | None = None) -> Array:
    """Return `float_keys.keys` of a run of bit patterns."""
    width = 8 * raw.dtype.itemsize
    top = (1 << (width - 1)) - 1
    if absolute:
        return np.bitwise_and(raw, top, out=out)
    sign = raw >> (width - 1)  # -1 where negative
    return np.subtract(raw ^ (sign & top), sign, out=out)


def _look(spans: Iterable[_Span], lows: Sequence[int], high: int, absolute: bool, dtype: torch.dtype) -> list[_Inside]:
    """Write masks as if all above the tensors' `lows` stayed, and return what lies in the bracket."""
    limit = float_keys.highest(dtype)
    key_buffer, flag_buffer = np.empty(CHUNK, f"i{dtype.itemsize}"), np.empty(CHUNK, np.bool_)
    none = np.empty(0, np.intp)
    found: list[_Inside] = []
    for span in spans:
        key, flag, low = key_buffer[: span.raw.size], flag_buffer[: span.raw.size], lows[span.index]
        _keys(span.raw, absolute, out=key)
        largest = int(key.max())
        if largest > limit or (not absolute and key.min() < -limit):
            raise float_keys.NotFiniteError(span.index)
        if largest <= low:
            span.keep.fill(False)
            found.append(_Inside(span, 0, none, key[none]))
            continue
        np.greater(key, low, out=span.keep)
        if span.contenders is not None:
            np.logical_and(span.keep, span.contenders, out=span.keep)
        positions = where_only(span.keep, np.greater(key, high, out=flag))
        assert positions is not None
        found.append(_Inside(span, int(np.count_nonzero(span.keep)), positions, key[positions]))
    return found
