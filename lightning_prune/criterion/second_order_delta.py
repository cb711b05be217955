"""Magnitude times how much the weight's movement has been changing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Site, itself, moved_on, times_magnitude
from lightning_prune.ranking import by_rows


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
    total: Callable[[Tensor], Tensor] = field(default=itself, repr=False)

    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.number("decay", self.decay, least=0, below=1)

    def at(self, site: Site) -> SecondOrderDelta:
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
        old = self.memory.get("old_weight")
        self.memory["older_weight"] = torch.zeros_like(w) if old is None else old
        self.memory["old_weight"] = w.clone()

    def _gradient(self, w: Tensor) -> Tensor:
        old, older = self.memory.get("old_weight"), self.memory.get("older_weight")
        delta = w.clone() if older is None else w + older
        for part, of in by_rows(delta, old) if old is not None else ():
            part.sub_(2.0 * of)
        return moved_on(self.memory.get("gradient"), delta.abs_(), self.decay, self.total)
