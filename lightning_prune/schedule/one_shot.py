"""The schedule that prunes once, at one step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_prune import given, steps


@dataclass(frozen=True)
class OneShot:
    """Go to the final sparsity in a single update.

    Args:
        final_sparsity: share of weights that is zero from then on, in [0, 1]; 0 never prunes.
        step: when; int = optimizer steps, float = share of the run. 0 prunes before the first step.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    final_sparsity: float
    step: int | float

    def __post_init__(self) -> None:
        given.make_plain(self)
        steps.check_sparsity("final_sparsity", self.final_sparsity)
        steps.check_position("step", self.step)

    @property
    def begin_step(self) -> int | float:
        """The one update."""
        return self.step

    @property
    def end_step(self) -> int | float:
        """The one update."""
        return self.step

    def resolve(self, total_steps: int | None) -> OneShot:
        """Return this schedule in whole steps."""
        return replace(self, step=steps.in_steps("step", self.step, total_steps))

    def last_update(self, step: int) -> int | None:
        """Return the one update step, or None before it."""
        at = steps.resolved("step", self.step)
        return at if step >= at else None

    def sparsity(self, step: int) -> float:
        """Return 0 before the update, the final sparsity from it on."""
        return 0.0 if self.last_update(step) is None else self.final_sparsity
