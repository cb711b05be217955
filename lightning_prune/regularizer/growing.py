"""A penalty that grows on what is to be cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.regularizer.protocol import Moment


@dataclass(frozen=True)
class Growing:
    """Add strength / 2 * p * sum of w^2 over the entries that would go if the final sparsity were asked for now.

    p is the progress through the schedule's window, from 0 to 1. What is cut is then small already, and the others have
    taken over its work. Works with every pattern; with whole units it draws in the units that come next. Source: GReg,
    Wang et al. 2021 (arXiv 2012.09243), where the set is chosen once; here it is chosen anew at each update.

    Args:
        strength: the penalty's factor at the end of the window, at least 0.
        moment: set by the pruner.
    """

    strength: float
    moment: Moment = Moment()

    needs_going = True

    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)

    def at(self, moment: Moment) -> Growing:
        """Return the penalty for that weight at that moment."""
        return Growing(self.strength, moment)

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return the penalty of one weight."""
        if self.moment.going is None:
            return weight.sum() * 0.0
        drawn = torch.where(self.moment.going, weight, weight.new_zeros(()))
        return 0.5 * self.strength * self.moment.progress * drawn.square().sum()
