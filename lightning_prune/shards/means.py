"""Means of which none depends on how many others there are: the same bits of a whole weight and of a piece of it."""

from __future__ import annotations

import torch
from torch import Tensor

_AT_ONCE = 8
"""Parts that are added one after the other; each round leaves an eighth."""


def mean_of_rows(rows: Tensor) -> Tensor:
    """Return the mean of each row of (rows, entries), in float32 at least.

    On the CPU it does not depend on the other rows. On devices torch's order of a sum may depend on their number.
    """
    wide = torch.promote_types(rows.dtype, torch.float32)
    if rows.device.type != "cpu":
        return rows.mean(1, dtype=wide)
    rows = rows.contiguous()
    # Each row by itself, in one order whatever the others. A single one would be cut up among threads.
    return rows.mean(1, dtype=wide) if len(rows) > 1 else rows.expand(2, -1).mean(1, dtype=wide)[:1]


def summed(values: Tensor, dim: int) -> Tensor:
    """Return the sum over a dimension, in float32 at least: part by part, in an order that its length alone decides."""
    wide = torch.promote_types(values.dtype, torch.float32)
    while (length := values.shape[dim]) > 1:
        part = -(-length // _AT_ONCE)
        total = values.narrow(dim, 0, part).to(wide, copy=True)
        for start in range(part, length, part):
            some = values.narrow(dim, start, min(part, length - start))
            total.narrow(dim, 0, some.shape[dim]).add_(some)
        values = total
    return values.to(wide).squeeze(dim)
