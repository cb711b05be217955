"""The schedule of a few rounds, each of which takes the same share of what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_prune import given, steps


@dataclass(frozen=True)
class Iterative:
    """Prune in a few rounds with training between them, each round the same share of what is left.

    Round i of n leaves (1 - s_f)^(i / n) of the weights, so that each removes `share` = 1 - (1 - s_f)^(1 / n) of what
    it finds. The rounds are spread evenly from `begin_step` to `end_step`; a single round comes at `end_step`.
    Source: Han et al. 2015 (arXiv 1506.02626); with a rewind, Frankle & Carbin 2019 (arXiv 1803.03635).

    Args:
        final_sparsity: share of weights that is zero after the last round, in [0, 1]; 0 never prunes.
        begin_step: the first round; int = optimizer steps, float = share of the run.
        end_step: the last round; int or float as above.
        rounds: how many rounds, at least 1.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    final_sparsity: float
    begin_step: int | float
    end_step: int | float
    rounds: int

    def __post_init__(self) -> None:
        given.make_plain(self)
        steps.check_sparsity("final_sparsity", self.final_sparsity)
        steps.check_window(self.begin_step, self.end_step)
        given.whole("rounds", self.rounds, 1)

    @property
    def share(self) -> float:
        """The share of the weights left that each round removes."""
        return 1.0 - (1.0 - self.final_sparsity) ** (1.0 / self.rounds)

    def resolve(self, total_steps: int | None) -> Iterative:
        """Return this schedule in whole steps. Raises ValueError if the window is too short for the rounds."""
        begin = steps.in_steps("begin_step", self.begin_step, total_steps)
        end = max(begin, steps.in_steps("end_step", self.end_step, total_steps))
        if self.rounds > 1 and end - begin < self.rounds - 1:
            raise ValueError(f"rounds={self.rounds} do not fit between begin_step={begin} and end_step={end}")
        return replace(self, begin_step=begin, end_step=end)

    def last_update(self, step: int) -> int | None:
        """Return the step of the newest round not after `step`, or None before the first."""
        done = self._rounds_by(step)
        return self._step_of(done) if done else None

    def sparsity(self, step: int) -> float:
        """Return the sparsity after the rounds up to `step`."""
        done = self._rounds_by(step)
        if done == self.rounds:
            return self.final_sparsity
        return 1.0 - (1.0 - self.final_sparsity) ** (done / self.rounds)

    def _step_of(self, number: int) -> int:
        begin = steps.resolved("begin_step", self.begin_step)
        end = steps.resolved("end_step", self.end_step)
        return end if number == self.rounds else begin + (end - begin) * (number - 1) // (self.rounds - 1)

    def _rounds_by(self, step: int) -> int:
        return sum(self._step_of(number) <= step for number in range(1, self.rounds + 1))
