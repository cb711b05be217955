"""How much a unit tells: the entropy of its pooled values over examples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled, of_each_weight, remembered, wide


@dataclass(frozen=True)
class Entropy:
    """Score a unit by H = -sum p ln p of its values, averaged over positions, in a histogram over examples.

    The bins are equal parts of the unit's own range, from its smallest value to its largest; one that is always the
    same has an entropy of 0. Values are those that a layer reads, behind norm and activation. For `pattern=Channel()`.
    Source: Luo & Wu 2017 (arXiv 1706.05791), section 3.2.

    Args:
        bins: m.
        window: how many steps before each update are looked at: their examples are the paper's evaluation set.
        memory: of one layer that reads the units, set by the pruner: a float for each unit and example.
        name: of the weight that computes them, set by the pruner.

    Raises:
        ValueError: an argument is out of range; called before anything was seen, with the weight's name.
    """

    bins: int = 100
    window: int = 10
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "activation"
    of_outputs: ClassVar[bool] = True
    rows: ClassVar[tuple[str, ...]] = ("pooled",)

    def __post_init__(self) -> None:
        check_window(self.window)
        given.whole("bins", self.bins, 2)
        if self.window is None:
            raise ValueError("window=None: the values of each example are kept, so give a number of steps")

    def at(self, site: Site) -> Entropy:
        """Return the criterion with that layer's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the means over positions, (examples, units)."""
        return {"pooled": wide(seen).mean(2)}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the entropies in nats, one for each weight of a unit."""
        pooled = doubled(remembered(self.memory, "pooled", self.name))
        low, high = pooled.amin(0), pooled.amax(0)
        span = (high - low).where(high > low, torch.ones_like(high))
        places = ((pooled - low) / span * self.bins).long().clamp(max=self.bins - 1)
        counts = pooled.new_zeros(self.bins, pooled.shape[1]).scatter_add(0, places, torch.ones_like(pooled))
        shares = counts / len(pooled)
        entropies = -(shares * shares.clamp(min=1e-300 if shares.dtype == torch.float64 else 1e-38).log()).sum(0)
        return of_each_weight(entropies.clamp(min=0.0).to(wide(weight)), weight)
