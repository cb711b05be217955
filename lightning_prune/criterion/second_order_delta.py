"""Magnitude times how much the weight's movement has been changing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import Site


@dataclass(frozen=True)
class SecondOrderDelta:
    """Score |w| G, with G a running mean of the normalised second difference of the weight over three updates.

    D = |w + w_oldold - 2 w_old|; G <- d G + (1 - d) D / ||D||_2; then w_oldold <- w_old <- w. History starts at zero.
    Source: TensorFlow `model_pruning`, `second_order_gradient`.

    Args:
        decay: d, in [0, 1).
        memory: `old_weight`, `older_weight` and `gradient` of one weight, set by the pruner; three more floats a
        weight.
    """

    decay: float = 0.99
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay={self.decay} must lie in [0, 1)")

    def at(self, site: Site) -> SecondOrderDelta:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory)

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return |w| G, and move the memory on by one update."""
        w = weight.detach().float()
        old = self.memory.get("old_weight", torch.zeros_like(w))
        delta = (w + self.memory.get("older_weight", torch.zeros_like(w)) - 2.0 * old).abs()
        norm = delta.norm()
        step = delta / norm if norm > 0 else delta
        gradient = self.decay * self.memory.get("gradient", torch.zeros_like(w)) + (1.0 - self.decay) * step
        self.memory.update(gradient=gradient, older_weight=old, old_weight=w.clone())
        return w.abs() * gradient
