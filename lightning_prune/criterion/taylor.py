"""How much the loss is expected to change without a weight, or a filter: first-order Taylor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Observed, Site, check_window, of_each_weight, remembered, wide


@dataclass(frozen=True)
class Taylor:
    """Score a weight by a running mean of (w g)^2, or a filter by one of (sum over its weights of w g)^2.

    w g is the first-order change of the loss when w is set to zero. At each observed step the mean moves:
    m <- d m + (1 - d) (w g)^2; it lasts from one update to the next. Source: Molchanov et al. 2019 (CVPR,
    "Importance Estimation for Neural Network Pruning"), eq. 8, with its momentum of .9.

    Args:
        of_filters: score whole outputs, by the square of the sum; else each weight.
        window: how many steps before each update are looked at; None for all.
        decay: d, in [0, 1).
        memory: of one weight, set by the pruner: one more float a weight, or an output.
        name: of the weight, set by the pruner.

    Raises:
        ValueError: an argument is out of range; called before anything was seen, with the weight's name.
    """

    of_filters: bool = False
    window: int | None = 10
    decay: float = 0.9
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "gradient"

    def __post_init__(self) -> None:
        check_window(self.window)
        given.number("decay", self.decay, least=0, below=1)
        given.flag("of_filters", self.of_filters)

    @property
    def of_outputs(self) -> bool:
        """Whether all weights of an output have one score."""
        return self.of_filters

    @property
    def of_entries(self) -> bool:
        """Whether a score depends on its own entry alone."""
        return not self.of_filters

    def at(self, site: Site) -> Taylor:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return this step's squared changes, in the weight's shape, or (outputs,)."""
        change = wide(weight) * wide(seen)
        change = change.flatten(1).sum(1) if self.of_filters else change
        return {"change": change.square_()}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the running means."""
        change = remembered(self.memory, "change", self.name)
        return of_each_weight(change, weight) if self.of_filters else change.clone()
