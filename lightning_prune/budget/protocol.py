"""What a budget must answer, and the price that it gives a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn


class Curve(Protocol):
    """What a layer costs by the lengths of one of its weights, where that is not so much an entry."""

    def __call__(self, left: Sequence[Any]) -> float:
        """Return the cost with so many places left along each dimension."""
        ...

    def steepest(self, dim: int) -> float:
        """Return the most that one place less along a dimension saves, wherever it is."""
        ...


@dataclass(frozen=True)
class Price:
    """What a model costs, and how that falls with the entries of its weights.

    Attributes:
        unit: what is paid in, in words.
        total: what the whole model costs, with what no pruning takes away.
        each: name of a weight -> what one of its entries costs, or what it costs by its lengths.
        shapes: name of a weight -> its full shape.
        digits: how many digits behind the point are shown.
        basis: what it rests on, in words; "" where it is counted.
    """

    unit: str
    total: float
    each: Mapping[str, float | Curve]
    shapes: Mapping[str, tuple[int, ...]]
    digits: int = 0
    basis: str = ""

    def gone(self, sizes: Mapping[str, Sequence[Any]]) -> Any:
        """Return what is saved where weights have so many places left along each dimension.

        Args:
            sizes: name of a weight -> its length along each dimension; numbers or 0-dim tensors.
        """
        return sum(self._gone(name, left) for name, left in sizes.items() if self.each.get(name))

    def _gone(self, name: str, left: Sequence[Any]) -> Any:
        cost, shape = self.each[name], self.shapes[name]
        return cost(shape) - cost(left) if callable(cost) else cost * (math.prod(shape) - math.prod(left))

    @property
    def of_curves(self) -> bool:
        """Whether some weights cost something else than so much an entry."""
        return any(callable(cost) for cost in self.each.values())

    def steepest(self, name: str, dim: int) -> float:
        """Return the most that one place less of a weight along a dimension saves, wherever it is."""
        cost, shape = self.each.get(name, 0.0), self.shapes.get(name, ())
        if callable(cost):
            return cost.steepest(dim)
        return cost * math.prod(shape) / shape[dim] if cost else 0.0


class Budget(Protocol):
    """What the sparsity is a share of. With a true `by_cost`, units are ranked by their worth for what they cost."""

    def price(self, model: nn.Module, example_inputs: Any, shapes: Mapping[str, tuple[int, ...]]) -> Price | None:
        """Return what a model costs; None where what counts is the entries of prunable weights.

        Args:
            model: not pruned yet, or with zeros in place: sizes are those of its tensors.
            example_inputs: what one forward takes; None for the module's `example_input_array`.
            shapes: name of each weight that units slice -> its shape.

        Raises:
            ValueError: there are no example inputs.
        """
        ...


@runtime_checkable
class MeasuredBudget(Protocol):
    """A budget of what is measured: a run does it once, saves it, and goes on with it; all ranks have that of one.

    With a `speedup` that is not None the final sparsity is searched at which a smaller copy is measured so much faster,
    with a `batch` and `threads` if it has them.
    """

    is_measured: bool

    def measured(self, model: nn.Module, example_inputs: Any) -> Budget:
        """Return the same budget with what it needs to know: as it is where it has been measured, else measured now."""
        ...

    def measurements(self) -> dict[str, Any]:
        """Return what was measured, as plain values that load with `weights_only=True`."""
        ...

    def knowing(self, measurements: Mapping[str, Any]) -> Budget:
        """Return the same budget with measurements. Raises ValueError if they are damaged."""
        ...
