"""Layer after layer: each is pruned at an update of its own, and sees those before it pruned already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lightning_prune import given, steps


@dataclass(frozen=True)
class LayerByLayer:
    """Prune the first layer at `begin_step`, the last one at `end_step`, and the others in between, evenly spread.

    Each goes from dense to its final share at its turn, in the model's order; units that are coupled count as one
    layer, that of the first weight which computes them. What comes between two turns, training or a criterion that
    looks at it, sees the layers before pruned. Which layers there are is known once a pruner has seen the model. The
    scope must rank each by itself: `Uniform`, `ERK` or `ByLayer`. Source: Polyak & Wolf 2015 ("Channel-level
    acceleration of deep face representations"), and most papers of reconstructions.

    Args:
        final_sparsity: share of weights that is zero at the end, in [0, 1]; 0 never prunes.
        begin_step: the turn of the first layer; int = optimizer steps, float = share of the run.
        end_step: that of the last; int or float as above.
        shares: for each layer in order which share of all that goes is gone after its turn, set by the pruner.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    final_sparsity: float
    begin_step: int | float
    end_step: int | float
    shares: tuple[float, ...] = field(default=(1.0,), repr=False)

    def __post_init__(self) -> None:
        given.make_plain(self)
        steps.check_sparsity("final_sparsity", self.final_sparsity)
        steps.check_window(self.begin_step, self.end_step)

    def resolve(self, total_steps: int | None) -> LayerByLayer:
        """Return this schedule in whole steps."""
        found = steps.resolve_grid(self.begin_step, self.end_step, 1, total_steps)
        return replace(self, begin_step=found["begin_step"], end_step=found["end_step"])

    def in_turn(self, shares: Sequence[float]) -> LayerByLayer:
        """Return the schedule for so many layers.

        Raises:
            ValueError: there are more layers than steps.
        """
        begin, end = steps.resolved("begin_step", self.begin_step), steps.resolved("end_step", self.end_step)
        if end - begin < len(shares) - 1:
            raise ValueError(
                f"{self} has {end - begin + 1} steps for {len(shares)} layers, each of which is to have a step of its "
                f"own: end_step must be {begin + len(shares) - 1} at least"
            )
        return replace(self, shares=tuple(shares))

    def turn(self, layer: int) -> int:
        """Return the step at which a layer, counted from 0, is pruned."""
        begin, end = steps.resolved("begin_step", self.begin_step), steps.resolved("end_step", self.end_step)
        return begin + layer * (end - begin) // max(1, len(self.shares) - 1)

    def turns(self, step: int) -> int:
        """Return how many layers have had their turn at `step`."""
        begin, end = steps.resolved("begin_step", self.begin_step), steps.resolved("end_step", self.end_step)
        if step < begin or step >= end:
            return 0 if step < begin else len(self.shares)
        return min(len(self.shares), ((step - begin + 1) * (len(self.shares) - 1) - 1) // (end - begin) + 1) or 1

    def last_update(self, step: int) -> int | None:
        """Return the newest turn not after `step`, or None before `begin_step`."""
        if step >= self.end_step:
            return steps.resolved("end_step", self.end_step)
        done = self.turns(step)
        return self.turn(done - 1) if done else None

    def sparsity(self, step: int) -> float:
        """Return the sparsity with all pruned whose turn has come."""
        done = self.turns(step)
        return self.final_sparsity * self.shares[done - 1] if done else 0.0
