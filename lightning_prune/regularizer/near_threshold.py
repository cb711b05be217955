"""A penalty on the weights that are likely to go next, and on them alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class NearThreshold:
    """Add strength * sum min(|w|, reach * threshold); its gradient is strength * sign(w) below the reach, 0 above.

    Pruning costs accuracy by removing weights that still matter. This draws to zero what lies near the mask's threshold
    and so is likely to go at the next updates, before it goes, and leaves large weights free of the bias that L1 and L2
    put on them. Before the first update the threshold is 0, and so is the penalty. Source: the capped l1 penalty of
    Zhang 2010 (JMLR 11, multi-stage convex relaxation), with the mask's own threshold as the cap.

    Args:
        strength: factor, at least 0.
        reach: multiple of the threshold up to which weights are drawn, above 0.
    """

    strength: float
    reach: float = 2.0

    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)
        given.number("reach", self.reach, above=0)

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return the penalty of one weight."""
        return self.strength * weight.abs().clamp(max=self.reach * max(0.0, threshold)).sum()
