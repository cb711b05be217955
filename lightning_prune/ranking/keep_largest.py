"""Drop the smallest of many values spread over many tensors: exactly, in linear time, with nothing concatenated.

Two ways to one answer. On the CPU a sample brackets the boundary, one pass over the values writes the masks as if the
bracket were kept and collects the few values inside it, and those are then put right. Where the sample misses, and on
other devices, the boundary comes from counting bits (`float_keys.kth_smallest`). Of equal values the later one goes
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from lightning_prune.ranking import float_keys
from lightning_prune.ranking.float_keys import NotFiniteError
from lightning_prune.ranking.spared import Spared

_NUMPY = find_spec("numpy") is not None
"""Torch works without numpy, and so does this; only slower on the CPU."""


def count(flags: Tensor) -> int:
    """Return how many entries of a bool tensor are true."""
    if _NUMPY and flags.device.type == "cpu":
        import numpy as np

        return int(np.count_nonzero(flags.numpy()))  # counts bytes several times faster than torch
    return int(flags.count_nonzero())


def keep_largest(
    values: Sequence[Tensor],
    contenders: Sequence[Tensor | None],
    drop: int,
    absolute: bool,
    contending: int | None = None,
    spared: Sequence[Spared] = (),
) -> tuple[list[Tensor], float]:
    """Drop the `drop` smallest contenders, and return which stay and the value at the boundary.

    Args:
        values: floats of one dtype and device, any shapes.
        contenders: bool in the values' shapes, which of them take part; None means all.
        drop: how many go, at least 1 and at most as many as contend.
        absolute: rank |values|.
        contending: how many contend, if that is known.
        spared: tensors of which some stay in any case, in their order; the others give more, and `drop` go in all. No
            more than are to stay.

    Returns:
        Bool tensors in the values' shapes, true for contenders that stay; and the largest value dropped.

    Raises:
        NotFiniteError: one of the values is NaN or infinite.
    """
    found = None
    if _NUMPY and values[0].device.type == "cpu":
        from lightning_prune.ranking.bracket import by_bracket

        if contending is None:
            contending = sum(v.numel() if c is None else count(c) for v, c in zip(values, contenders, strict=True))
        found = by_bracket(values, contenders, drop, absolute, contending, spared)
    masks, key = found or _by_counting(values, contenders, drop, absolute, spared)
    return masks, float_keys.value_of(key, values[0].dtype)


def _by_counting(
    values: Sequence[Tensor],
    contenders: Sequence[Tensor | None],
    drop: int,
    absolute: bool,
    spared: Sequence[Spared] = (),
) -> tuple[list[Tensor], int]:
    masks, boundary = _by_counting_all(values, contenders, drop, absolute)
    if all(sum(map(count, masks[run.first : run.end])) >= run.least for run in spared):
        return masks, boundary
    best = [v.new_zeros(v.shape, dtype=torch.bool) for v in values]
    for run in spared:
        theirs, who = values[run.first : run.end], contenders[run.first : run.end]
        living = [v.new_ones(v.shape, dtype=torch.bool) if c is None else c for v, c in zip(theirs, who, strict=True)]
        going = sum(map(count, living)) - run.least
        if run.least:
            best[run.first : run.end] = _by_counting_all(theirs, who, going, absolute)[0] if going else living
    rest = [~b if c is None else c & ~b for c, b in zip(contenders, best, strict=True)]
    masks, boundary = _by_counting_all(values, rest, drop, absolute)
    return [m | b for m, b in zip(masks, best, strict=True)], boundary


def _by_counting_all(
    values: Sequence[Tensor], contenders: Sequence[Tensor | None], drop: int, absolute: bool
) -> tuple[list[Tensor], int]:
    keys = [float_keys.keys(v, absolute) for v in values]
    limit = float_keys.highest(values[0].dtype)
    for index, key in enumerate(keys):
        if key.numel() and (int(key.max()) > limit or int(key.min()) < -limit):
            raise NotFiniteError(index)
    parts = [k if c is None else k[c] for k, c in zip(keys, contenders, strict=True)]
    boundary = float_keys.kth_smallest(parts, drop)
    spared = sum(int((p <= boundary).sum()) for p in parts) - drop  # of the equal ones, the first few stay
    masks: list[Tensor] = []
    for key, contender in zip(keys, contenders, strict=True):
        keep, equal = key > boundary, key == boundary
        if contender is not None:
            keep, equal = keep & contender, equal & contender
        if spared:
            first = equal.flatten().nonzero().flatten()[:spared]
            keep = keep.contiguous()
            keep.view(-1)[first] = True
            spared -= len(first)
        masks.append(keep)
    return masks, boundary
