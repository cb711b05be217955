"""How much the loss is expected to rise at a minimum: OBD, with the empirical Fisher for the Hessian's diagonal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, remembered, wide


@dataclass(frozen=True)
class Fisher:
    """Score a weight by h w^2 / 2, with h the mean of the squared gradients of the observed steps.

    Second order, and each weight by itself. A gradient is that of a step's whole batch. Source: LeCun et al. 1990
    (Optimal Brain Damage), with the empirical Fisher in place of the Hessian, as Theis et al. 2018 (arXiv 1801.05787).

    Args:
        window: how many steps before each update are looked at; None for all.
        memory: of one weight, set by the pruner: one more float a weight.
        name: of the weight, set by the pruner.

    Raises:
        ValueError: the window is no number of steps; called before anything was seen, with the weight's name.
    """

    window: int | None = 10
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "gradient"
    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_window(self.window)

    def at(self, site: Site) -> Fisher:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return this step's squared gradient, and 1."""
        squares = wide(seen).square()
        return {"squares": squares, "count": squares.new_ones(())}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return h w^2 / 2."""
        squares = remembered(self.memory, "squares", self.name)
        return wide(weight).square().mul_(squares).div_(2.0 * self.memory["count"])
