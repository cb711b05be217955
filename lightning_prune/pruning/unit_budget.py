"""Which units each group keeps, for a share that must go, and the share at which enough weights are zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.scope import Layer, Scope
from lightning_prune.selection import Selection, Units


@dataclass(frozen=True)
class UnitBudget:
    """The scored units of one update: which of them each group keeps, for a share of the rows that must go.

    Attributes:
        layers: the groups as a scope sees them.
        units: the same as a selection sees them.
        scope: which groups compete, and how many rows each may keep.
        selection: from scores and counts to units.
        multiple: each group keeps a multiple of so many units.
    """

    layers: Sequence[Layer]
    units: Sequence[Units]
    scope: Scope
    selection: Selection
    multiple: int

    def gone(self, share: float) -> list[int]:
        """Return how many units of each group go."""
        keeps, _ = self._selected(share)
        return [len(k) - max(int(k.sum()), self._least(k, u)) for k, u in zip(keeps, self.units, strict=True)]

    def keeps(self, share: float) -> tuple[list[Tensor], list[float]]:
        """Return which units of each group stay, and the thresholds."""
        keeps, thresholds = self._selected(share)
        return [self._rounded(k, u) for k, u in zip(keeps, self.units, strict=True)], thresholds

    def _selected(self, share: float) -> tuple[list[Tensor], list[float]]:
        keeps = {layer.name: (torch.empty(0), 0.0) for layer in self.layers}
        by_name = {units.name: units for units in self.units}
        for pool in self.scope(self.layers, share):
            kept, threshold = self.selection([by_name[name] for name in pool.names], pool.drop, pool.sparsity)
            keeps |= {name: (keep, threshold) for name, keep in zip(pool.names, kept, strict=True)}
        return [keep for keep, _ in keeps.values()], [threshold for _, threshold in keeps.values()]

    def _least(self, keep: Tensor, units: Units) -> int:
        """Return how many stay at least, of those that can: the next multiple."""
        number = max(1, -(-int(keep.sum()) // self.multiple)) * self.multiple
        return min(number, len(keep) if units.alive is None else int(units.alive.sum()))

    def _rounded(self, keep: Tensor, units: Units) -> Tensor:
        """Return the units kept, with the best of the others brought back until a multiple is reached."""
        missing = self._least(keep, units) - int(keep.sum())
        if missing <= 0:
            return keep
        barred = keep if units.alive is None else keep | ~units.alive
        back = units.values.masked_fill(barred, -math.inf).argsort(descending=True, stable=True)[:missing]
        return keep.scatter(0, back, True)


def nearest(zeros: Callable[[float], float], goal: float, precision: float) -> float:
    """Return the share in [0, 1] at which a rising function comes nearest to the goal; of equal ones the first seen."""
    low, high = 0.0, 1.0
    best, nearest = low, abs(zeros(low) - goal)
    at = high
    while True:
        found = zeros(at)
        if abs(found - goal) < nearest:
            best, nearest = at, abs(found - goal)
        low, high = (at, high) if found < goal else (low, at)
        if not nearest or low == 1.0 or high - low <= precision:
            return best
        at = (low + high) / 2
