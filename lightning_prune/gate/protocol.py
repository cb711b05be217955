"""What a gate must answer: one of units or single weights, and one that is a threshold on a weight tensor."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Gate(Protocol):
    """How the logit of a unit becomes a random mask that can be learned."""

    def first(self, number: int, generator: torch.Generator) -> Tensor:
        """Return the logits that so many units begin with."""
        ...

    def probability(self, logits: Tensor) -> Tensor:
        """Return the probability of each unit to be kept, differentiable."""
        ...

    def sample(self, logits: Tensor, uniform: Tensor, progress: float) -> Tensor:
        """Return masks in [0, 1] for draws from U(0, 1), whose last dimension is the units.

        They are differentiable in the logits. `progress` is the share of the window that is over.
        """
        ...

    def settled(self, logits: Tensor) -> Tensor:
        """Return by what the output of each unit that is kept is multiplied in evaluation."""
        ...


class Threshold(Gate, Protocol):
    """The gate of one weight tensor whose single logit is the logarithm of a threshold on the magnitudes."""

    def on(self, weight: Tensor) -> Threshold:
        """Return the gate of a copy of the weight, with values of its own."""
        ...

    def worth(self, logits: Tensor) -> Tensor:
        """Return ln(|w| / t) of each entry, a large negative number for w = 0."""
        ...

    def threshold(self, logits: Tensor) -> float:
        """Return the threshold on the magnitudes."""
        ...

    def crossing(self, logits: Tensor) -> Tensor:
        """Return how many entries the threshold crosses while its logarithm grows by 1."""
        ...


@runtime_checkable
class ThresholdGate(Protocol):
    """A learned threshold for each weight tensor: `at(weight, T)` gives the gate of one."""

    def at(self, weight: Tensor, threshold: float) -> Threshold: ...
