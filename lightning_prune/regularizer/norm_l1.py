"""L1 on the scales of norm layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_prune import given
from lightning_prune.regularizer.protocol import Moment


@dataclass(frozen=True)
class NormL1:
    """Add strength * sum |gamma| over the scales of the norms behind pruned channels, and nothing on the weights.

    Together with `NormScale` it is network slimming. Needs a pattern that knows the norms: `Channel`. Source: Liu et
    al. 2017 (arXiv 1708.06519).

    Args:
        strength: factor, at least 0.
        moment: set by the pruner.
    """

    strength: float
    moment: Moment = Moment()

    needs_norm = True

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)

    def at(self, moment: Moment) -> NormL1:
        """Return the penalty for that tensor."""
        return NormL1(self.strength, moment)

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return the penalty of one tensor: 0 unless it holds the scales of a norm."""
        return (self.strength if self.moment.role == "norm" else 0.0) * weight.abs().sum()
