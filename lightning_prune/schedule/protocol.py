"""What a schedule must answer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Schedule(Protocol):
    """When to prune, and how sparse to be by then. Steps are completed optimizer steps.

    `begin_step` and `end_step` bound the window. A float is a share of the run and must be resolved before use.
    """

    @property
    def final_sparsity(self) -> float: ...
    @property
    def begin_step(self) -> int | float: ...
    @property
    def end_step(self) -> int | float: ...

    def resolve(self, total_steps: int | None) -> Schedule:
        """Return this schedule in whole steps. Raises ValueError if shares are used and `total_steps` is None."""
        ...

    def last_update(self, step: int) -> int | None:
        """Return the newest update step not after `step`, or None before the first."""
        ...

    def sparsity(self, step: int) -> float:
        """Return the share of weights that should be zero at `step`, in [0, 1]."""
        ...


@runtime_checkable
class HoldingSchedule(Protocol):
    """A schedule that has the masks read off the zeros of a model, and no weight ranked.

    It is a `Schedule` besides, which asks for nothing.
    """

    def holding(self, sparsity: float) -> Schedule:
        """Return the schedule for a model with that share of zeros, in [0, 1]."""
        ...
