"""Floats as integers of the same width that order alike, so that comparing and counting is exact for every dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

INTEGER_OF = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer dtype of an item size in bytes."""

_DIGIT = 16


class NotFiniteError(ValueError):
    """A value that cannot be ranked; `index` says in which tensor."""

    def __init__(self, index: int) -> None:
        super().__init__(f"a value in tensor {index} is not finite")
        self.index = index


def bits(values: Tensor) -> Tensor:
    """Return the same memory as signed integers of the same width."""
    return values.detach().view(INTEGER_OF[values.element_size()])


def keys(values: Tensor, absolute: bool) -> Tensor:
    """Return integers that order like the floats `values`, or like |values|.

    The bit patterns of floats >= 0 order like the floats; those of negative ones the other way round, which flipping
    all bits but the sign mends. -0.0 comes out equal to 0.0.
    """
    raw = bits(values)
    top = torch.iinfo(raw.dtype).max
    return raw & top if absolute else torch.where(raw < 0, (raw ^ top) + 1, raw)


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
    width = torch.iinfo(parts[0].dtype).bits
    digit = min(_DIGIT, width)
    prefix: int | None = None
    for shift in range(width - digit, -1, -digit):
        counts = torch.zeros(1 << digit, dtype=torch.int64)
        for part in parts:
            flat = part.flatten()
            if prefix is None:  # the first digit carries the sign
                digits = (flat >> shift).long() + (1 << (digit - 1))
            else:
                digits = (flat[flat >> (shift + digit) == prefix] >> shift).long() & ((1 << digit) - 1)
            counts += digits.bincount(minlength=1 << digit).cpu()
        cumulated = counts.cumsum(0)
        found = int(torch.searchsorted(cumulated, k))
        k -= int(cumulated[found - 1]) if found else 0
        prefix = found - (1 << (digit - 1)) if prefix is None else (prefix << digit) | found
    assert prefix is not None
    return prefix
