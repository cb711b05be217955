"""A sparse tensor in fewer bytes: which entries are not zero, as a bit each or as runs of zeros, and those entries.

An entry is zero if all its bits are: -0.0 is none. Positions count the entries in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.ranking.float_keys import INTEGER_OF, bits

DENSE, BITMASK, GAPS = "dense", "bitmask", "gaps"
VALUES = "values"
LONGEST = 255
"""Of a run of zeros: so many, with no entry behind them; the run goes on in the next byte."""
_ENTRY = 100
"""What one more tensor takes in the header of a file, about, in bytes."""
_BITS = torch.arange(8, dtype=torch.uint8, device="cpu")


def encoded(tensor: Tensor, gaps: bool = True) -> tuple[str, dict[str, Tensor]]:
    """Return the encoding that takes the fewest bytes, and its parts; the dense tensor itself has no parts.

    Args:
        tensor: dense and contiguous, on the CPU, of any dtype and shape.
        gaps: whether runs of zeros will do. Without them no byte is of more than eight entries.
    """
    raw = bits(tensor).view(-1)
    there = raw != 0
    values = raw[there].view(tensor.dtype)
    best, parts, most = DENSE, dict[str, Tensor](), tensor.nbytes - values.nbytes - _ENTRY
    ways = ((BITMASK, packed, _bytes_of(len(raw))), (GAPS, runs, len(values)))
    for name, where, least in ways if gaps else ways[:1]:
        if least < most:
            found = where(there)
            if found.nbytes < most:
                best, parts, most = name, {name: found, VALUES: values}, found.nbytes
    return best, parts


def decoded(encoding: str, where: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the dense tensor.

    Args:
        encoding: "bitmask" or "gaps".
        where: of that encoding, uint8.
        values: the entries that are not zero, in order.
        shape: of the tensor; nothing of its size is made before `where` was seen to be of so many entries.

    Raises:
        ValueError: the parts do not fit each other or the shape.
    """
    there = (unpacked if encoding == BITMASK else behind_runs)(where, math.prod(shape))
    entries = int(there.count_nonzero())
    if entries != len(values):
        raise ValueError(f"its {encoding} is of {entries} values, and there are {len(values)}")
    raw = there.new_zeros(len(there), dtype=INTEGER_OF[values.element_size()])
    return raw.masked_scatter_(there, bits(values)).view(values.dtype).view(tuple(shape))


def packed(there: Tensor) -> Tensor:
    """Return bools as bits of uint8, the first as the lowest bit of the first byte, the last byte filled with zeros."""
    whole = there.new_zeros(8 * _bytes_of(len(there)), dtype=torch.uint8)
    whole[: len(there)] = there
    return (whole.view(-1, 8) << _BITS).sum(1, dtype=torch.uint8)


def unpacked(mask: Tensor, size: int) -> Tensor:
    """Return bits as bools. Raises ValueError if it is no mask of so many entries."""
    if len(mask) != _bytes_of(size):
        raise ValueError(f"its bitmask has {len(mask)} bytes; {size} entries take {_bytes_of(size)}")
    there = ((mask.unsqueeze(1) >> _BITS) & 1).bool().view(-1)
    if there[size:].any():
        raise ValueError(f"its bitmask has a bit set behind its {size} entries")
    return there[:size]


def runs(there: Tensor) -> Tensor:
    """Return how many zeros stand before each entry that is true, as uint8.

    255 stands for so many zeros and no entry. Zeros behind the last entry are written in 255s as far as these go, so
    that a byte is of 255 entries at most.
    """
    at = there.nonzero().view(-1)
    zeros = torch.cat([at.new_tensor([-1]), at, at.new_tensor([len(there)])]).diff() - 1
    lasts = (zeros // LONGEST + 1).cumsum(0) - 1  # where each run's last byte stands; the very last is left out
    found = at.new_full((int(lasts[-1]),), LONGEST, dtype=torch.uint8)
    found[lasts[:-1]] = (zeros[:-1] % LONGEST).to(torch.uint8)
    return found


def behind_runs(gaps: Tensor, size: int) -> Tensor:
    """Return bools that are true behind each run. Raises ValueError if the runs are not of so many entries."""
    is_entry = gaps != LONGEST
    behind = (gaps.to(torch.int64) + is_entry).cumsum(0)
    covered = int(behind[-1]) if len(behind) else 0
    if covered > size:
        raise ValueError(f"its gaps run to entry {covered}, past the end at {size}")
    if size - covered >= LONGEST:
        raise ValueError(f"its gaps are of {covered} entries, and its shape says {size}")
    there = gaps.new_zeros(size, dtype=torch.bool)
    there[behind[is_entry] - 1] = True
    return there


def _bytes_of(flags: int) -> int:
    return (flags + 7) // 8
