"""The gradual schedule: cubic by default, linear with power 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_prune import given, steps


@dataclass(frozen=True)
class Polynomial:
    """Raise the sparsity along a polynomial that is steep at first and flat at the end.

    With p the share of the window behind step t: s(t) = s_f + (s_i - s_f) (1 - p)^power. Updates come at `begin_step`,
    every `pruning_frequency` steps after it, and always at `end_step`. Source: Zhu & Gupta 2017, arXiv 1710.01878.

    Args:
        final_sparsity: share of weights that is zero at the end, in [0, 1]; 0 never prunes.
        begin_step: the first update; int = optimizer steps, float = share of the run.
        end_step: the last update; int or float as above.
        pruning_frequency: steps between updates; int or float as above.
        initial_sparsity: share that is zero from the first update on.
        power: exponent; 3 is the cubic schedule, 1 the linear one.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    final_sparsity: float
    begin_step: int | float
    end_step: int | float
    pruning_frequency: int | float
    initial_sparsity: float = 0.0
    power: float = 3.0

    def __post_init__(self) -> None:
        given.make_plain(self)
        steps.check_sparsities(self.initial_sparsity, self.final_sparsity)
        steps.check_window(self.begin_step, self.end_step)
        steps.check_frequency(self.pruning_frequency)
        steps.check_power(self.power)

    def resolve(self, total_steps: int | None) -> Polynomial:
        """Return this schedule in whole steps."""
        return replace(self, **steps.resolve_grid(self.begin_step, self.end_step, self.pruning_frequency, total_steps))

    def last_update(self, step: int) -> int | None:
        """Return the newest update step not after `step`, or None before `begin_step`."""
        return steps.last_on_grid(step, self.begin_step, self.end_step, self.pruning_frequency)

    def sparsity(self, step: int) -> float:
        """Return the sparsity on the curve at `step`."""
        rest = 1.0 - steps.progress(step, self.begin_step, self.end_step)
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * rest**self.power
