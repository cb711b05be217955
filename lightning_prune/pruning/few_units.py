"""Few units of weights on a device: all of them are brought to the host at once and ranked there, without a wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_prune.ranking import on_host
from lightning_prune.selection import Units, is_split

MOST = 1 << 18
"""So many units at most: a mebibyte of scores, which the host has and has ranked sooner than a device has launched the
kernels that do it for many small weights."""


def are_few(units: Sequence[Units]) -> bool:
    """Return whether units lie on a device, all on this one, and are few enough to be ranked on the host."""
    if is_split(units):
        return False
    return sum(u.values.numel() for u in units) <= MOST and any(u.values.device.type != "cpu" for u in units)


def brought(units: Sequence[Units]) -> list[Units]:
    """Return units with their tensors on the host, in one synchronization for each dtype."""
    values = on_host([u.values for u in units])
    flags = iter(on_host([some for u in units for some in (u.alive, u.protected) if some is not None]))
    here: list[Units] = []
    for u, scores in zip(units, values, strict=True):
        alive = None if u.alive is None else next(flags)
        protected = None if u.protected is None else next(flags)
        here.append(replace(u, values=scores, alive=alive, protected=protected))
    return here


def returned(keeps: Sequence[Tensor], units: Sequence[Units]) -> Iterator[Tensor]:
    """Yield bool tensors of the host on the units' device, each in memory of its own; they travel together."""
    flat = torch.cat([keep.flatten() for keep in keeps]).to(units[0].values.device, non_blocking=True)
    for keep, part in zip(keeps, flat.split([keep.numel() for keep in keeps]), strict=True):
        yield part.view(keep.shape).clone()
