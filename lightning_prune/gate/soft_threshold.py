"""A threshold for each weight tensor that trains with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class SoftThreshold:
    """Multiply weights by m = relu(1 - t / |w|), so that w m = sign(w) relu(|w| - t), with a learned t for each tensor.

    Nothing is random. A weight is kept if |w| > t; that is p > .5 for p = |w| / (|w| + t), and another threshold T of
    the learned masks is as if all t were T / (1 - T) times as large. The logit is ln t. With a schedule, every update
    moves all t by a common factor, so that exactly the share asked for lies below, and the task alone decides how the
    layers divide it among them: t steps along its gradient where that leaves the share as it is. Without one, a mask
    regularizer such as `MeanProbability` has to raise the thresholds. Only for weights: `pattern=Element()`.

    Source: soft threshold reparametrization (Kusupati et al. 2020, arXiv 2002.03231), with exp for its g; the common
    factor and the projected gradient are ours.

    Args:
        start: the first threshold, above 0.

    Raises:
        ValueError: `start` is out of range.
    """

    start: float = 1e-4

    def __post_init__(self) -> None:
        given.number("start", self.start, above=0)

    def at(self, weight: Tensor, threshold: float) -> SoftThresholdOn:
        """Return the gate of one weight tensor, for a threshold T on p."""
        return SoftThresholdOn(weight, self.start, math.log(threshold / (1 - threshold)) if threshold else -math.inf)


@dataclass(frozen=True)
class SoftThresholdOn:
    """The gate of one weight tensor.

    Attributes:
        weight: the parameter; masks have a value for each of its entries.
        start: the first threshold.
        shift: the logarithm of the factor on t.
    """

    weight: Tensor
    start: float
    shift: float

    @property
    def _magnitude(self) -> Tensor:
        wide = self.weight if self.weight.dtype == torch.float64 else self.weight.float()
        return wide.abs().flatten()

    def first(self, number: int, generator: torch.Generator) -> Tensor:
        """Return the one logit that all entries share."""
        return torch.full((1,), math.log(self.start))

    def on(self, weight: Tensor) -> SoftThresholdOn:
        """Return the gate of a copy of the weight, with values of its own."""
        return replace(self, weight=weight)

    def probability(self, logits: Tensor) -> Tensor:
        """Return p = |w| / (|w| + t) of each entry, differentiable in the logit alone."""
        return torch.sigmoid(self._magnitude.detach().log() - logits)

    def sample(self, logits: Tensor, uniform: Tensor, progress: float) -> Tensor:
        """Return m, (1, entries), differentiable in the logit and the weight: the gradient of w m in w is 1 or 0."""
        threshold, magnitude = (logits + self.shift).exp(), self._magnitude
        above = magnitude > threshold
        return torch.where(above, 1.0 - threshold / torch.where(above, magnitude, 1.0), 0.0)[None]

    def settled(self, logits: Tensor) -> Tensor:
        """Return m for the weight of now."""
        return self.sample(logits, logits, 1.0)[0].detach()

    def threshold(self, logits: Tensor) -> float:
        """Return the threshold on the magnitudes."""
        return float((logits.detach() + self.shift).exp())

    def worth(self, logits: Tensor) -> Tensor:
        """Return ln(|w| / t) of each entry, -10,000 for w = 0."""
        return (self._magnitude.detach().log() - logits.detach()).nan_to_num(nan=math.nan, neginf=-1e4)

    def crossing(self, logits: Tensor) -> Tensor:
        """Return how many entries t crosses while ln t grows by 1, from those within some tenths of it."""
        share = torch.sigmoid(10.0 * self.worth(logits))
        return (10.0 * share * (1.0 - share)).sum()
