"""What a schedule must answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


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


@runtime_checkable
class ToldSchedule(Protocol):
    """A schedule that is told a metric after each validation, and asks for a sparsity by that.

    It is a `Schedule` besides, which asks for nothing before it was told.
    """

    @property
    def metric(self) -> str:
        """The name of the metric."""
        ...

    def told(self, history: Sequence[tuple[int, float]]) -> Any:
        """Return the schedule that follows from (completed optimizer steps, metric) of each validation, in order.

        It has `good`, the index of the last validation whose weights are to be kept, `back`, whether weights go back
        to those now, and `closed()`, the schedule of a run that ends with them.
        """
        ...


@runtime_checkable
class TurnSchedule(Protocol):
    """A schedule that prunes one layer after the other, each to what the scope asks of it in the end.

    It is a `Schedule` besides. Layers are counted from 0.
    """

    def in_turn(self, shares: Sequence[float]) -> Any:
        """Return the schedule for as many layers: which share of all that goes is gone after the turn of each."""
        ...

    def turn(self, layer: int) -> int:
        """Return the step at which a layer is pruned."""
        ...

    def turns(self, step: int) -> int:
        """Return how many layers have had their turn at `step`."""
        ...
