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
        chosen = zip(self._selected(share), self.units, strict=True)
        return [len(keep) - max(int(keep.sum()), self._least(keep, u, few)) for (keep, _, few), u in chosen]

    def keeps(self, share: float) -> tuple[list[Tensor], list[float]]:
        """Return which units of each group stay, and the thresholds."""
        chosen = self._selected(share)
        rounded = [self._rounded(keep, u, few) for (keep, _, few), u in zip(chosen, self.units, strict=True)]
        return rounded, [threshold for _, threshold, _ in chosen]

    def _selected(self, share: float) -> list[tuple[Tensor, float, int]]:
        """Return for each group which units are kept, the threshold, and how many rows it has to keep at least."""
        found = {layer.name: (torch.empty(0), 0.0, 1) for layer in self.layers}
        by_name = {units.name: units for units in self.units}
        row = {layer.name: layer.shape[1] for layer in self.layers}
        for pool in self.scope(self.layers, share):
            kept, threshold = self.selection([by_name[name] for name in pool.names], pool.drop, pool.sparsity)
            for name, keep, few in zip(pool.names, kept, pool.least or [1] * len(pool.names), strict=True):
                found[name] = keep, threshold, -(-few // row[name])
        return list(found.values())

    def _least(self, keep: Tensor, units: Units, floor: int) -> int:
        """Return how many stay at least, of those that can: the next multiple."""
        number = -(-max(1, floor, int(keep.sum())) // self.multiple) * self.multiple
        return min(number, len(keep) if units.alive is None else int(units.alive.sum()))

    def _rounded(self, keep: Tensor, units: Units, floor: int) -> Tensor:
        """Return the units kept, with the best of the others brought back until a multiple is reached."""
        missing = self._least(keep, units, floor) - int(keep.sum())
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
