"""A stretched and clipped sigmoid that reaches 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class HardConcrete:
    """Mask m = clip(s (zeta - gamma) + gamma, 0, 1) with s = sigmoid((ln u - ln(1 - u) + v) / beta), u from U(0, 1).

    A unit is kept with the probability that m is above 0: sigmoid(v - beta ln(-gamma / zeta)). In evaluation m is
    clip(sigmoid(v) (zeta - gamma) + gamma, 0, 1); stripping multiplies it into the weights that read the unit. Source:
    Louizos et al. 2018, L0 regularization, arXiv 1712.01312.

    Args:
        beta: temperature, above 0.
        gamma: lower end of the stretch, below 0.
        zeta: upper end of the stretch, above 1.
        start: the probability that units begin with, in (0, 1); their logits get noise of deviation .01.

    Raises:
        ValueError: an argument is out of range.
    """

    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1
    start: float = 0.9

    def __post_init__(self) -> None:
        given.number("beta", self.beta, above=0)
        given.number("gamma", self.gamma, below=0)
        given.number("zeta", self.zeta, above=1)
        given.number("start", self.start, above=0, below=1)

    @property
    def _shift(self) -> float:
        return self.beta * math.log(-self.gamma / self.zeta)

    def first(self, number: int, generator: torch.Generator) -> Tensor:
        """Return the logits that so many units begin with."""
        middle = math.log(self.start / (1.0 - self.start)) + self._shift
        return middle + 0.01 * torch.randn(number, generator=generator)

    def probability(self, logits: Tensor) -> Tensor:
        """Return the probability of each unit to be kept."""
        return torch.sigmoid(logits - self._shift)

    def sample(self, logits: Tensor, uniform: Tensor, progress: float) -> Tensor:
        """Return masks of the shape of `uniform`, whose last dimension is the units; differentiable in the logits."""
        return self._stretched(torch.sigmoid((uniform.logit(eps=1e-6) + logits) / self.beta))

    def settled(self, logits: Tensor) -> Tensor:
        """Return by what the output of each unit that is kept is multiplied in evaluation."""
        return self._stretched(torch.sigmoid(logits))

    def _stretched(self, s: Tensor) -> Tensor:
        return (s * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)
