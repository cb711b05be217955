"""Which units of a weight a pattern protects, those that go only after all others, and which are alive."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lightning_prune.pattern import Pattern
from lightning_prune.ranking import by_rows
from lightning_prune.selection import Units


def guarded(pattern: Pattern, units: Units) -> Units:
    """Return units with those that are protected."""
    values, alive = units.values, units.alive
    if pattern.single:
        return units
    if getattr(pattern, "entries", False):
        return replace(units, protected=_protected(pattern, values, alive, units.absolute))
    protected = pattern.protected(values)
    if protected is not None and alive is not None:
        protected = pattern.protected(values.masked_fill(~alive, torch.finfo(values.dtype).min))
    return replace(units, protected=protected)


def _protected(pattern: Pattern, values: Tensor, alive: Tensor | None, absolute: bool) -> Tensor:
    """Return which entries are protected, some rows at a time."""
    protected = torch.empty(values.shape, dtype=torch.bool, device=values.device)
    lowest = torch.finfo(values.dtype).min
    for part, out, *rest in by_rows(values, protected, *(() if alive is None else (alive,))):
        scores = part.abs() if absolute else part.clone()
        for living in rest:
            scores.masked_fill_(~living, lowest)
        found = pattern.protected(scores)
        assert found is not None
        out.copy_(found)
    return protected


def living_units(pattern: Pattern, mask: Tensor) -> Tensor:
    """Return which units of a weight are alive, in its shape, the mask itself, where each is one weight."""
    holds = pattern.weights_per_unit(mask.shape)
    return mask if isinstance(holds, int) and holds == 1 else pattern.units(mask.float()) > 0


def safe(units: Units) -> Tensor:
    """Return the units that are protected and alive."""
    if units.protected is None:
        return torch.zeros_like(units.values, dtype=torch.bool)
    return units.protected if units.alive is None else units.protected & units.alive
