"""Whether training moves a weight away from zero, or towards it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, remembered, wide


@dataclass(frozen=True)
class Movement:
    """Score a weight by -sum over steps of w g: above 0 where gradient descent moves it away from zero.

    For fine-tuning a model that was trained on something else, where large weights are those of the old task. Pruned
    entries add nothing, as they are zero. Source: Sanh et al. 2020 (arXiv 2005.07683), eq. 4, without its
    straight-through gradients of pruned weights.

    Args:
        window: how many steps before each update are summed up; None for all from the first on, as in the paper.
        memory: of one weight, set by the pruner: one more float a weight.
        name: of the weight, set by the pruner.

    Raises:
        ValueError: the window is no number of steps; called before anything was seen, with the weight's name.
    """

    window: int | None = None
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "gradient"
    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_window(self.window)

    def at(self, site: Site) -> Movement:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return -w g of this step."""
        return {"movement": (wide(weight) * wide(seen)).neg_()}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the sums."""
        return remembered(self.memory, "movement", self.name).clone()
