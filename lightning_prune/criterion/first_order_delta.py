"""Magnitude times how fast the weight has been moving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Site, itself, moved_on, times_magnitude


@dataclass(frozen=True)
class FirstOrderDelta:
    """Score |w| G, with G a running mean of the normalised change of the weight between updates.

    D = |w - w_old|; G <- d G + (1 - d) D / ||D||_2; then w_old <- w. History starts at zero. Weight changes stand in
    for gradients, so nothing but the weights is read. Source: TensorFlow `model_pruning`, `first_order_gradient`.

    Args:
        decay: d, in [0, 1).
        memory: `old_weight` and `gradient` of one weight, set by the pruner; two more floats a weight.
    """

    decay: float = 0.99
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    total: Callable[[Tensor], Tensor] = field(default=itself, repr=False)

    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.number("decay", self.decay, least=0, below=1)

    def at(self, site: Site) -> FirstOrderDelta:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, total=site.total)

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return |w| G, and move the memory on by one update."""
        scores = self.score(weight, grad)
        self.remember(weight, grad)
        return scores

    def score(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return |w| G, and leave the memory as it is."""
        w = weight.detach().float()
        return times_magnitude(self._gradient(w), w)

    def remember(self, weight: Tensor, grad: Tensor | None) -> None:
        """Move the memory on by one update."""
        w = weight.detach().float()
        self.memory["gradient"] = self._gradient(w)
        self.memory["old_weight"] = w.clone()

    def _gradient(self, w: Tensor) -> Tensor:
        old = self.memory.get("old_weight")
        delta = w.abs() if old is None else (w - old).abs_()
        return moved_on(self.memory.get("gradient"), delta, self.decay, self.total)
