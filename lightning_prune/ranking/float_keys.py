"""Floats as integers of the same width that order alike, so that comparing and counting is exact for every dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.ranking.digits import Run, kth_of_each

INTEGER_OF = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer dtype of an item size in bytes."""

_CHUNK = 1 << 22
"""Integers counted at a time."""


class NotFiniteError(ValueError):
    """A value that cannot be ranked; `index` says in which tensor, `contest` in which contest of several."""

    def __init__(self, index: int, contest: int = 0) -> None:
        super().__init__(f"a value in tensor {index} is not finite")
        self.index = index
        self.contest = contest


def bits(values: Tensor) -> Tensor:
    """Return the same memory as signed integers of the same width."""
    plain = values.detach() if values.requires_grad else values  # asked at every step: no call more
    return plain.view(INTEGER_OF[values.element_size()])


def keys(values: Tensor, absolute: bool, own: bool = False) -> Tensor:
    """Return integers that order like the floats `values`, or like |values|.

    The bit patterns of floats >= 0 order like the floats; those of negative ones the other way round, which flipping
    all bits but the sign mends. -0.0 comes out equal to 0.0.

    Args:
        values: floats.
        absolute: order by |values|.
        own: nobody else needs the memory of `values`, so that it may be written to.
    """
    raw = bits(values)
    info = torch.iinfo(raw.dtype)
    if absolute:
        return raw.bitwise_and_(info.max) if own else raw & info.max
    flipped = raw >> (info.bits - 1)  # -1 where negative
    flipped &= info.max
    flipped ^= raw
    return flipped.add_(flipped < 0)


def highest(dtype: torch.dtype) -> int:
    """Return the key of the largest finite value of that dtype: keys beyond it are infinite or NaN."""
    return int(bits(torch.tensor([torch.finfo(dtype).max], dtype=dtype)).item())


def value_of(key: int, dtype: torch.dtype) -> float:
    """Return the float whose key is `key`."""
    integer = INTEGER_OF[torch.empty((), dtype=dtype).element_size()]
    raw = torch.tensor([key], dtype=integer)
    if key < 0:
        raw = (raw - 1) ^ torch.iinfo(integer).max
    return float(raw.view(dtype).item())


def kth_smallest(parts: Sequence[Tensor], k: int) -> int:
    """Return the k-th smallest (from 1) of all integers in `parts`, tensors of one dtype, in linear time.

    Counts 16 bits at a time, most significant first, in every part on its own: counts add up, so nothing is
    concatenated.
    """
    info = torch.iinfo(parts[0].dtype)
    size = sum(part.numel() for part in parts)
    chunks = [chunk.clone for part in parts for chunk in part.flatten().split(_CHUNK)]
    return kth_of_each([Run(chunks, size, k)], info.min, info.bits)[0].value
