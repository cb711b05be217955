"""The sum of absolute values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class L1:
    """Add strength * sum |w|; its gradient is strength * sign(w). Draws small weights to zero.

    Args:
        strength: factor, at least 0.
    """

    strength: float

    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return the penalty of one weight."""
        return self.strength * weight.abs().sum()
