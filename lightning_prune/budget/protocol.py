"""What a budget must answer, and the price that it gives a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn


@dataclass(frozen=True)
class Price:
    """What a model costs, and how that falls with the entries of its weights.

    Attributes:
        unit: what is paid in, in words.
        total: what the whole model costs, with what no pruning takes away.
        each: name of a weight -> what one of its entries costs.
        shapes: name of a weight -> its full shape.
    """

    unit: str
    total: float
    each: Mapping[str, float]
    shapes: Mapping[str, tuple[int, ...]]

    def gone(self, sizes: Mapping[str, Sequence[Any]]) -> Any:
        """Return what is saved where weights have so many places left along each dimension.

        Args:
            sizes: name of a weight -> its length along each dimension; numbers or 0-dim tensors.
        """
        return sum(
            self.each[name] * (math.prod(self.shapes[name]) - math.prod(left))
            for name, left in sizes.items()
            if self.each.get(name)
        )


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
