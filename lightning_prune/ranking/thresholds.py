"""What a threshold in float64 means for values of any float dtype: exactly, with no float64 on their device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_prune.ranking import float_keys
from lightning_prune.ranking.chunks import Chunk, chunks_of, put, take
from lightning_prune.ranking.counting import Contest
from lightning_prune.ranking.digits import kth_of_each
from lightning_prune.shards import Shard, highest

_NO_FLOAT64 = ("mps",)
"""Types of devices without float64."""


def extremes(
    values: Sequence[Tensor], absolute: bool, shards: Sequence[Shard | None] = ()
) -> list[tuple[float, float]]:
    """Return the least and the largest of each float tensor, or 0 and the largest of |values|.

    NaN where one value is; infinities where one of another rank's piece is. Tensors on one device are read together.
    One without entries has zeros. Of pieces they are those of the whole.
    """
    found = _extremes(values, absolute)
    if not any(shard is not None for shard in shards):
        return found
    nothing = (-math.inf, -math.inf)
    ends = [(-low, high) if v.numel() else nothing for (low, high), v in zip(found, values, strict=True)]
    row = torch.tensor(ends, dtype=torch.float64).nan_to_num(math.inf, math.inf, -math.inf).flatten()
    most = iter(highest(float_keys.keys(row, absolute=False).tolist(), shards))  # integers, that order like the floats
    return [(-_value(next(most)), _value(next(most))) for _ in values]


def _value(key: int) -> float:
    return float_keys.value_of(key, torch.float64)


def _extremes(values: Sequence[Tensor], absolute: bool) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(values)
    where: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(values):
        if tensor.numel():
            where.setdefault((tensor.device, tensor.dtype), []).append(index)
    for indices in where.values():
        ends = torch.stack([torch.stack(torch.aminmax(values[index])) for index in indices])
        for index, (low, high) in zip(indices, ends.cpu().double().tolist(), strict=True):
            found[index] = (0.0, max(-low, high)) if absolute else (low, high)
    return found


@dataclass(frozen=True)
class Ranked:
    """Values of which one is looked for: the k-th smallest, from 1.

    Attributes:
        values: floats of one dtype.
        absolute: rank |values|.
        k: which of them.
        shards: of which wholes the values are pieces, where they are.
    """

    values: Sequence[Tensor]
    absolute: bool
    k: int
    shards: Sequence[Shard | None] = ()


def kth_smallest_values(ranked: Sequence[Ranked]) -> list[float]:
    """Return the one that is looked for in each, of all ranks; those of one dtype are read together."""
    found: list[float] = [0.0] * len(ranked)
    where: dict[tuple[torch.dtype, bool], list[int]] = {}
    for index, one in enumerate(ranked):
        where.setdefault((one.values[0].dtype, one.absolute), []).append(index)
    for (dtype, _), indices in where.items():
        contests = [_contest(ranked[index]) for index in indices]
        runs = [replace(contest.run(contest.chunks), k=contest.drop) for contest in contests]
        places = list(dict.fromkeys(place for contest in contests for place in contest.places))
        keys = kth_of_each(runs, contests[0].lowest, contests[0].width, places)
        for index, key in zip(indices, keys, strict=True):
            found[index] = float_keys.value_of(key.value, dtype)
    return found


def _contest(ranked: Ranked) -> Contest:
    return Contest(ranked.values, [None] * len(ranked.values), ranked.k, 0, ranked.absolute, ranked.shards)


def kth_smallest_value(values: Sequence[Tensor], absolute: bool, k: int, shards: Sequence[Shard | None] = ()) -> float:
    """Return the k-th smallest (from 1) of all values, floats of one dtype, or of |values|; of all ranks."""
    return kth_smallest_values([Ranked(values, absolute, k, shards)])[0]


def above(values: Sequence[Tensor], absolute: bool, threshold: float, equal: bool) -> list[Tensor]:
    """Return which values, floats of one dtype, are above a threshold, or |values|; with `equal`, or equal to it."""
    dtype = values[0].dtype
    near = torch.tensor([threshold], dtype=torch.float64).to(dtype)
    last = int(float_keys.keys(near, absolute=False))  # the largest key that is not above
    if float(near) > threshold or (equal and float(near) == threshold):
        last -= 1
    masks = [torch.empty(v.shape, dtype=torch.bool, device=v.device) for v in values]
    for chunk in chunks_of(values):
        put(_keys(values, absolute, chunk) > last, masks, chunk)
    return masks


def _keys(values: Sequence[Tensor], absolute: bool, chunk: Chunk) -> Tensor:
    return float_keys.keys(take(values, chunk), absolute, own=len(chunk) > 1)


def where_float64_is(values: Tensor) -> Tensor:
    """Return values to be made float64: as they are, or on the CPU where their device has no float64."""
    return values.cpu() if values.device.type in _NO_FLOAT64 else values
