"""How much the loss is expected to change without a unit, seen at the scale of the norm behind it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Observed, Site, check_window, remembered, wide


@dataclass(frozen=True)
class NormTaylor:
    """Score a unit by a running mean of (gamma g)^2, of the scale gamma of the norm behind it and its gradient g.

    gamma g is the first-order change of the loss when the norm gives nothing but its shift. At each observed step the
    mean moves: m <- d m + (1 - d) (gamma g)^2; it lasts from one update to the next. A unit with several norms has the
    sum of theirs. Needs a pattern that knows which norms these are: a channel pattern. Source: Molchanov et al. 2019
    (CVPR, "Importance Estimation for Neural Network Pruning"), a gate behind the norm, with its momentum of .9.

    Args:
        window: how many steps before each update are looked at; None for all.
        decay: d, in [0, 1).
        memory: of one norm, set by the pruner: one more float a unit.
        name: of the norm's scale, set by the pruner.

    Raises:
        ValueError: an argument is out of range; called before anything was seen, with the norm's name.
    """

    window: int | None = 10
    decay: float = 0.9
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "gradient"
    of_entries: ClassVar[bool] = True
    needs_norm: ClassVar[bool] = True
    of_norms: ClassVar[bool] = True
    """It looks at the norms' scales and scores these, in place of the weights that compute a unit."""

    def __post_init__(self) -> None:
        check_window(self.window)
        given.number("decay", self.decay, least=0, below=1)

    def at(self, site: Site) -> NormTaylor:
        """Return the criterion with that norm's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return this step's squared changes, one a scale."""
        return {"change": (wide(weight) * wide(seen)).square_()}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the running means, one a scale."""
        return remembered(self.memory, "change", self.name).clone()
