"""The steep sigmoid of a probability against a random threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class Sigmoid:
    """Keep a unit with probability p = sigmoid(a v): its mask is m = sigmoid(b (p - u)) for u drawn from U(0, 1).

    The steeper, the nearer m is to 0 or 1 and its mean over u to p, and the rarer a draw that moves v. Source:
    MaskPruning, after LOUPE (Bahadir et al., IEEE TCI 2020), from which `mean` comes.

    Args:
        a: slope of p in the logits, above 0.
        b: steepness of the mask, above 0.
        b_at_start: where the steepness begins; it grows by equal factors to b at the end of the window. None for b.
        start: the first probabilities: "uniform" in (.01, .99), or "normal" with mean .5 and deviation .1, clipped.
        mean: rescale the probabilities of each group to this mean: where theirs is above, p mean / mean(p), else
            1 - (1 - p) (1 - mean) / (1 - mean(p)). None leaves them.

    Raises:
        ValueError: an argument is out of range.
    """

    a: float = 5.0
    b: float = 200.0
    b_at_start: float | None = None
    start: Literal["uniform", "normal"] = "uniform"
    mean: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("a", self.a), ("b", self.b), ("b_at_start", self.b_at_start)):
            if value is not None:
                given.number(name, value, above=0)
        if self.start not in ("uniform", "normal"):
            raise ValueError(f"start={self.start!r} must be 'uniform' or 'normal'")
        if self.mean is not None:
            given.number("mean", self.mean, above=0, below=1)

    def first(self, number: int, generator: torch.Generator) -> Tensor:
        """Return the logits that so many units begin with."""
        if self.start == "uniform":
            p = 0.01 + 0.98 * torch.rand(number, generator=generator)
        else:
            p = (0.5 + 0.1 * torch.randn(number, generator=generator)).clamp(0.01, 0.99)
        return p.logit() / self.a

    def probability(self, logits: Tensor) -> Tensor:
        """Return the probability of each unit to be kept."""
        p = torch.sigmoid(self.a * logits)
        if self.mean is None:
            return p
        now = p.mean()
        return torch.where(now >= self.mean, p * self.mean / now, 1.0 - (1.0 - p) * (1.0 - self.mean) / (1.0 - now))

    def sample(self, logits: Tensor, uniform: Tensor, progress: float) -> Tensor:
        """Return masks of the shape of `uniform`, whose last dimension is the units; differentiable in the logits."""
        start = self.b if self.b_at_start is None else self.b_at_start
        b = start * (self.b / start) ** progress
        return torch.sigmoid(b * (self.probability(logits) - uniform))

    def settled(self, logits: Tensor) -> Tensor:
        """Return by what the output of each unit that is kept is multiplied in evaluation: 1."""
        return torch.ones_like(logits)
