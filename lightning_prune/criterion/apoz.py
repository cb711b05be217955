"""How seldom a unit is silent: the average percentage of zeros."""

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
class APoZ:
    """Score a unit by 1 - APoZ, the share of its values that are not zero, over examples and positions.

    The values are those that a layer reads, so behind norm and activation: it tells units apart behind a ReLU, and
    nothing behind activations that are never zero. For `pattern=Channel()`. Source: Hu et al. 2016 (arXiv 1607.03250).

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

    def at(self, site: Site) -> APoZ:
        """Return the criterion with that layer's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return how many values are zero, (units,), and of how many."""
        zeros = doubled((seen == 0).sum((0, 2)))
        return {"zeros": zeros, "count": zeros.new_tensor(seen.shape[0] * seen.shape[2])}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return 1 - APoZ, one for each weight of a unit."""
        zeros = share_out(remembered(self.memory, "zeros", self.name), self.memory["count"])
        return of_each_weight((1.0 - zeros).to(wide(weight)), weight)
