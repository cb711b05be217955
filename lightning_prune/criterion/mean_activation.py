"""How large a unit's values are."""

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
class MeanActivation:
    """Score a unit by the mean of its values' magnitudes, over examples and positions, where a layer reads them.

    Behind a ReLU that is the mean activation of the paper. For `pattern=Channel()`. Source: Molchanov et al. 2016
    (arXiv 1611.06440), section 2.2, "activation".

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

    observes: ClassVar[Observed] = "activation"
    of_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_window(self.window)

    def at(self, site: Site) -> MeanActivation:
        """Return the criterion with that layer's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the sums of magnitudes, (units,), and how many values there are."""
        sizes = doubled(seen).abs().sum((0, 2))
        return {"sizes": sizes, "count": sizes.new_tensor(seen.shape[0] * seen.shape[2])}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the means, one for each weight of a unit."""
        sizes = share_out(remembered(self.memory, "sizes", self.name), self.memory["count"])
        return of_each_weight(sizes.to(wide(weight)), weight)
