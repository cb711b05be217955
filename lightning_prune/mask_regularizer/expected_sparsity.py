"""Steer the expected sparsity along the schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class ExpectedSparsity:
    """Add strength * (e - s)^2: e is the expected share of zeros among the weights, s what the schedule asks for.

    e is exact for units that are kept independently of each other, each with its probability.

    Args:
        strength: factor, at least 0.

    Raises:
        ValueError: the strength is negative.
    """

    strength: float = 10.0

    needs_schedule = True

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)

    def __call__(self, p: Tensor, expected: Tensor, asked: float) -> Tensor:
        """Return the penalty for the expected share of zeros."""
        return self.strength * (expected - asked).square()
