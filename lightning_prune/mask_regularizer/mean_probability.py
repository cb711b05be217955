"""The L1 norm of the mask."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class MeanProbability:
    """Add strength * mean of p over all units of all layers: each unit has to earn its place.

    With `HardConcrete` it is the L0 penalty, the expected share of units kept (Louizos et al. 2018); with `Sigmoid` the
    L1 penalty on the mask of LOUPE (Bahadir et al. 2020).

    Args:
        strength: factor, at least 0.

    Raises:
        ValueError: the strength is negative.
    """

    strength: float

    needs_schedule = False

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)

    def __call__(self, p: Tensor, expected: Tensor, asked: float) -> Tensor:
        """Return the penalty for the probabilities of all units."""
        return self.strength * p.mean()
