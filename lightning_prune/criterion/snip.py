"""How sensitive the loss is to the connection: SNIP."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, remembered, wide


@dataclass(frozen=True)
class Snip:
    """Score a weight by |w g|, with g its gradient summed over the observed steps.

    That is how fast the loss changes with a factor on the connection. The paper prunes once, before training:
    `OneShot(s, 10)` with a window of 10 is that. Source: Lee et al. 2019 (arXiv 1810.02340), eq. 5; the division by the
    sum over all weights changes no order and is left out.

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

    def at(self, site: Site) -> Snip:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return this step's gradient."""
        return {"gradient": wide(seen).clone()}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return |w g|."""
        return (wide(weight) * remembered(self.memory, "gradient", self.name)).abs_()
