"""Pruned weights return by their gradient: RigL, and GraNet where the sparsity rises meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from lightning_prune import given, steps


@dataclass(frozen=True)
class Gradient:
    """Have the pruned weights with the largest |gradient| return for the smallest ones that are left.

    The share that each layer exchanges at the update at step t is fraction / 2 (1 + cos(pi t / until)): it falls from
    `fraction` at the start of the run to nothing at `until`. With a schedule that rises this is GraNet, with one of
    constant sparsity from step 0 on RigL. Source: Evci et al. 2020 (arXiv 1911.11134), eq. 1; Liu et al. 2021 (arXiv
    2106.10404).

    Args:
        fraction: share of its weights that a layer would exchange at step 0, in (0, 1).
        until: from when on nothing returns; int = optimizer steps, float = share of the run.
        window: over how many steps before an update gradients are summed up; 1, as in the papers, takes those of the
            update's own step.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    fraction: float = 0.3
    until: int | float = 0.75
    window: int = 1

    def __post_init__(self) -> None:
        given.make_plain(self)
        given.number("fraction", self.fraction, above=0, below=1, hint=", a share of a layer's weights, such as 0.3")
        steps.check_position("until", self.until)
        if not self.until:
            raise ValueError(f"until={self.until} lets nothing return: leave the regrowth out")
        given.whole("window", self.window, 1, hint=", in optimizer steps")

    def resolve(self, total_steps: int | None) -> Gradient:
        """Return this regrowth in whole steps."""
        return replace(self, until=max(1, steps.in_steps("until", self.until, total_steps)))

    def share(self, step: int) -> float:
        """Return the share that is exchanged at the update at `step`; none before the first step has brought any."""
        until = steps.resolved("until", self.until)
        return 0.0 if not 0 < step < until else self.fraction / 2 * (1.0 + math.cos(math.pi * step / until))

    def __call__(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return |gradient|."""
        return gradient.abs()
