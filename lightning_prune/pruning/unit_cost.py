"""What goes with units: zeros among the weights, and what a budget says that they save."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning_prune.budget import Price
from lightning_prune.coupling.units import Group
from lightning_prune.masks import MaskedWeight
from lightning_prune.pruning.unit_budget import nearest
from lightning_prune.report import Spent

_Dims = list[tuple[int, list[tuple[int, int]]]]
"""For every dimension of a weight its length, and the groups that slice it with what each of their units takes."""


@dataclass(frozen=True)
class UnitCost:
    """Groups of units, and what goes with so many of each: numbers, or 0-dim tensors, group by group.

    Attributes:
        groups: the units.
        weights: every tensor that units slice, by name.
        counted: the weights among which zeros are counted.
        price: what the sparsity is a share of; None for these.
    """

    groups: Sequence[Group]
    weights: Mapping[str, MaskedWeight]
    counted: Sequence[MaskedWeight]
    price: Price | None

    @property
    def total(self) -> float:
        """All that the sparsity is a share of."""
        return self._size if self.price is None else self.price.total

    @property
    def _size(self) -> int:
        return sum(weight.size for weight in self.counted)

    def saved(self, gone: Sequence[Any]) -> Any:
        """Return how much of that goes."""
        if self.price is None:
            return self.zeros(gone)
        return self.price.gone({name: _left(dims, gone) for name, dims in self._priced.items()})

    def zeros(self, gone: Sequence[Any]) -> Any:
        """Return how many counted weights are zero."""
        return sum(numel - math.prod(_left(dims, gone)) for numel, dims in self._slices)

    def weights_per_unit(self) -> list[int]:
        """Return how many counted weights the first unit of each group takes with it."""
        units = [0] * len(self.groups)
        for numel, dims in self._slices:
            for size, takes in dims:
                for number, each in takes:
                    units[number] += numel // size * each
        return units

    def of_one_unit(self, multiple: int = 1) -> list[float]:
        """Return what the first units of each group save, so many of each as go together."""
        none: list[int] = [0] * len(self.groups)
        steps = [min(multiple, group.units) for group in self.groups]
        return [float(self.saved([*none[:n], step, *none[n + 1 :]])) for n, step in enumerate(steps)]

    def per_unit(self) -> list[float]:
        """Return what a unit of each group saves: the first; of times, which rise in steps, the mean of half of all."""
        if self.price is None or not self.price.of_curves:
            return self.of_one_unit()
        half = [max(1, group.units // 2) for group in self.groups]
        none: list[int] = [0] * len(self.groups)
        return [float(self.saved([*none[:n], step, *none[n + 1 :]])) / step for n, step in enumerate(half)]

    def _largest(self, multiple: int) -> float:
        """Return the most that a step of a group saves: of entries a first one, of measured times any."""
        if self.price is None or not self.price.of_curves:
            return max(self.of_one_unit(multiple))
        most = [0.0] * len(self.groups)
        for (name, dim), units in self._takes.items():
            for number, each in units:
                step = min(multiple, self.groups[number].units)
                most[number] += step * each * self.price.steepest(name, dim)
        return max(most)

    def spent(self, gone: Sequence[int], final: float, multiple: int) -> Spent:
        """Return what is paid where so many units are gone, and what can be saved."""
        assert self.price is not None
        least = [group.units - min(group.units, multiple) for group in self.groups]
        price, total = self.price, self.price.total
        numbers = (total, total - self.saved(gone), final, self._largest(multiple) / total, self.saved(least) / total)
        return Spent(price.unit, *numbers, price.digits, price.basis)

    def likely(self, sparsity: float) -> float:
        """Return the share of zeros among the counted weights where each group gives up alike to save a share."""
        units = [group.units for group in self.groups]
        share = nearest(lambda r: self.saved([r * n for n in units]), sparsity * self.total, 1e-6)
        return self.zeros([share * n for n in units]) / self._size

    @cached_property
    def _slices(self) -> list[tuple[int, _Dims]]:
        """For every counted weight its size, and its dimensions."""
        return [(weight.size, self._dims(weight)) for weight in self.counted]

    @cached_property
    def _priced(self) -> dict[str, _Dims]:
        """The dimensions of every weight that has a price, by name."""
        each = {} if self.price is None else self.price.each
        return {name: self._dims(weight) for name, weight in self.weights.items() if each.get(name)}

    def _dims(self, weight: MaskedWeight) -> _Dims:
        name = weight.target.name
        return [(size, self._takes.get((name, dim), [])) for dim, size in enumerate(weight.shape)]

    @cached_property
    def _takes(self) -> dict[tuple[str, int], list[tuple[int, int]]]:
        """Name and dimension of a tensor -> the groups that slice it, with how many places a unit takes."""
        takes: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for number, group in enumerate(self.groups):
            for part in group.parts:
                takes.setdefault((part.name, part.dim), []).append((number, part.index.shape[1]))
        return takes


def _left(dims: _Dims, gone: Sequence[Any]) -> list[Any]:
    return [size - sum(each * gone[i] for i, each in units) for size, units in dims]
