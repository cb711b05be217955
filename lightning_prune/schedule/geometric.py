"""The schedule for high sparsities: the share kept shrinks by equal factors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_prune import given, steps


@dataclass(frozen=True)
class Geometric:
    """Shrink the share of weights kept geometrically, slowing down towards the end.

    With p the share of the window behind step t, and k_i, k_f the shares kept at both ends:
    k(t) = k_i (k_f / k_i)^(1 - (1 - p)^power), and the sparsity is 1 - k(t). Where 99 % goes, a polynomial takes the
    last few weights in leaps of a third of what is left; this one takes the same share of what is left all along.

    Args:
        final_sparsity: share of weights that is zero at the end, in [0, 1); 0 never prunes.
        begin_step: the first update; int = optimizer steps, float = share of the run.
        end_step: the last update; int or float as above.
        pruning_frequency: steps between updates; int or float as above.
        initial_sparsity: share that is zero from the first update on.
        power: 1 keeps the factor constant; 2, the default, lets it slow down.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    final_sparsity: float
    begin_step: int | float
    end_step: int | float
    pruning_frequency: int | float
    initial_sparsity: float = 0.0
    power: float = 2.0

    def __post_init__(self) -> None:
        given.make_plain(self)
        steps.check_sparsities(self.initial_sparsity, self.final_sparsity)
        if self.final_sparsity == 1.0:
            raise ValueError("final_sparsity=1.0 cannot be reached by equal factors; use Polynomial, or less than 1")
        steps.check_window(self.begin_step, self.end_step)
        steps.check_frequency(self.pruning_frequency)
        steps.check_power(self.power)

    def resolve(self, total_steps: int | None) -> Geometric:
        """Return this schedule in whole steps."""
        return replace(self, **steps.resolve_grid(self.begin_step, self.end_step, self.pruning_frequency, total_steps))

    def last_update(self, step: int) -> int | None:
        """Return the newest update step not after `step`, or None before `begin_step`."""
        return steps.last_on_grid(step, self.begin_step, self.end_step, self.pruning_frequency)

    def sparsity(self, step: int) -> float:
        """Return the sparsity on the curve at `step`."""
        p = steps.progress(step, self.begin_step, self.end_step)
        if p == 1.0:
            return self.final_sparsity
        kept = 1.0 - self.initial_sparsity
        sparsity = 1.0 - kept * ((1.0 - self.final_sparsity) / kept) ** (1.0 - (1.0 - p) ** self.power)
        return min(sparsity, self.final_sparsity)  # rounding may put it a bit above
