"""How much the loss is expected to change without a unit's values: first-order Taylor on activations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune.criterion.protocol import (
    Observed,
    Site,
    check_window,
    doubled,
    of_each_weight,
    remembered,
    share_out,
    wide,
)


@dataclass(frozen=True)
class ActivationTaylor:
    """Score a unit by |mean over positions of z dC/dz| for an example, averaged over examples, L2-normalised by layer.

    z are the unit's values where a layer reads them, and C an example's own loss: the loss of a batch is taken to be
    the mean of its examples'. For `pattern=Channel()`. Source: Molchanov et al. 2016 (arXiv 1611.06440), eq. 8 and
    section 2.2, "normalization".

    Args:
        window: how many steps before each update are looked at; None for all.
        memory: of one layer that reads the units, set by the pruner: a double a unit.
        name: of the weight that computes them, set by the pruner.

    Raises:
        ValueError: the window is no number of steps; called before anything was seen, with the weight's name.
    """

    window: int | None = 10
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "saliency"
    of_outputs: ClassVar[bool] = True
    of_gradient: ClassVar[tuple[str, ...]] = ("changes",)

    def __post_init__(self) -> None:
        check_window(self.window)

    def at(self, site: Site) -> ActivationTaylor:
        """Return the criterion with that layer's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the sums over examples of |mean of z dC/dz|, (units,), and how many examples there are."""
        changes = doubled(seen).mean(2).abs().sum(0)
        return {"changes": changes, "count": changes.new_tensor(len(seen))}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the normalised means, one for each weight of a unit."""
        changes = share_out(remembered(self.memory, "changes", self.name), self.memory["count"])
        norm = changes.norm()
        return of_each_weight((changes / norm.where(norm > 0, norm.new_ones(()))).to(wide(weight)), weight)
