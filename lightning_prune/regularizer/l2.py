"""The sum of squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class L2:
    """Add strength * sum w^2; its gradient is 2 * strength * w.

    Unlike an optimizer's weight decay it acts on pruned-for weights alone, and its value is logged.

    Args:
        strength: factor, at least 0.
    """

    strength: float

    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return the penalty of one weight."""
        return self.strength * weight.square().sum()
