"""The schedule that prunes as far as a metric allows: it is told the metric after each validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lightning_prune import given, steps


@dataclass(frozen=True)
class AccuracyBudget:
    """Prune on while a validation metric stays within a drop of the dense model's, and end with the sparsest good.

    The reference is the best metric of the dense model, up to the first validation from `begin_step` on: let that be
    late enough, or begin with trained weights and `begin_step=0`, or give the `reference`. From there on, while the
    metric of a validation is within the budget, the weights are remembered and a `share` of those left goes.
    Where it is not, training has `patience` more validations to win it back; then weights, masks and all go back to the
    last good ones, and half as much is taken. Below a share of `finest`, or from `end_step` on, no more goes, and the
    rest of the run trains what there is. The run ends with the weights of the last good validation.

    Remembering takes the memory of the model once more, and so does a checkpoint. What is decided follows from the
    steps and metrics of the validations alone, which are saved: a resumed run goes on as it would have.

    Args:
        metric: its name among those that validation logs, such as "val/accuracy".
        drop: by how much it may be worse than the reference, in the metric's own units; at least 0.
        mode: "max" where more is better, "min" where less is.
        begin_step: from when on; int = optimizer steps, float = share of the run.
        end_step: when no more is taken; int or float as above.
        share: of the weights left, what goes at a time, in (0, 1).
        finest: the least such share that is tried, in (0, share].
        patience: how many validations training has to win the metric back, at least 0.
        least: the sparsity of the first step, in [0, most].
        most: a sparsity that is not exceeded, in (0, 1].
        reference: the metric to compare with; None for that of the dense model, measured.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    metric: str
    drop: float
    mode: Literal["max", "min"] = "max"
    begin_step: int | float = 0.3
    end_step: int | float = 0.85
    share: float = 0.3
    finest: float = 0.05
    patience: int = 1
    least: float = 0.0
    most: float = 0.999
    reference: float | None = None

    def __post_init__(self) -> None:
        given.make_plain(self)
        if not isinstance(self.metric, str) or not self.metric:
            raise ValueError(f"metric={self.metric!r} must be the name of what validation logs, such as 'val/accuracy'")
        given.number("drop", self.drop, least=0, hint=", in the metric's own units")
        if self.reference is not None:
            given.number("reference", self.reference, hint=", in the metric's own units, or None")
        if self.mode not in ("max", "min"):
            raise ValueError(f"mode={self.mode!r} must be 'max' or 'min'")
        steps.check_window(self.begin_step, self.end_step)
        given.number("share", self.share, above=0, below=1)
        given.number("finest", self.finest, above=0, most=self.share, hint=", at most share")
        given.whole("patience", self.patience, 0, hint=", in validations")
        steps.check_sparsity("least", self.least)
        steps.check_sparsity("most", self.most)
        if not self.least <= self.most or not self.most:
            raise ValueError(
                f"least={self.least} and most={self.most} must be shares, most above 0 and not below least"
            )

    @property
    def final_sparsity(self) -> float:
        """Nothing is asked for before anything was told."""
        return 0.0

    def resolve(self, total_steps: int | None) -> AccuracyBudget:
        """Return this schedule in whole steps. Raises ValueError if shares are used and `total_steps` is None."""
        begin = steps.in_steps("begin_step", self.begin_step, total_steps)
        end = max(begin, steps.in_steps("end_step", self.end_step, total_steps))
        return replace(self, begin_step=begin, end_step=end)

    def last_update(self, step: int) -> int | None:
        """Return the newest of begin and end, at which nothing goes."""
        begin, end = steps.resolved("begin_step", self.begin_step), steps.resolved("end_step", self.end_step)
        return end if step >= end else begin if step >= begin else None

    def sparsity(self, step: int) -> float:
        """Return 0: nothing was told yet."""
        self.last_update(step)  # refuses shares
        return 0.0

    def within(self, value: float, reference: float) -> bool:
        """Return whether a metric is within the budget; one that is not a number is not."""
        worse = reference - value if self.mode == "max" else value - reference
        return worse <= self.drop + 1e-12 * abs(reference)

    def _better(self, value: float, than: float) -> bool:
        return value > than if self.mode == "max" else value < than

    def told(self, history: Sequence[tuple[int, float]]) -> Told:
        """Return the schedule that follows from validations: (completed optimizer steps, metric) of each, in order."""
        begin, end = steps.resolved("begin_step", self.begin_step), steps.resolved("end_step", self.end_step)
        reference, share, waited = self.reference, self.share, 0
        level, good, good_level, back, done = 0.0, None, 0.0, False, False
        levels: list[tuple[int, float]] = [(begin, 0.0)]
        for index, (at, value) in enumerate(history):
            back = False
            if self.reference is None and good is None and math.isfinite(value):
                reference = value if reference is None or self._better(value, reference) else reference
            if at < begin:
                continue
            dense = self.reference is None and good is None and math.isfinite(value)
            if reference is not None and (dense or self.within(value, reference)):
                good, good_level, waited = index, level, 0
                level = level if done or at >= end else self._more(level, share)
                done = done or at >= end or level == good_level
            elif good is not None:
                waited += 1
                if waited > self.patience:
                    waited, back, share = 0, True, share / 2
                    done = done or at >= end or share < self.finest
                    level = good_level if done else self._more(good_level, share)
            if level != levels[-1][1] or back:
                levels.append((at, level))
        return Told(tuple(levels), end, reference, good, good_level, back, done)

    def _more(self, level: float, share: float) -> float:
        return min(self.most, max(self.least, 1.0 - (1.0 - level) * (1.0 - share)))


@dataclass(frozen=True)
class Told:
    """What an `AccuracyBudget` asks for, by what it was told.

    Attributes:
        levels: (step, sparsity from there on), in order; the first asks for nothing.
        until: when no more is taken.
        reference: the metric of the dense model, None before it was measured.
        good: the index of the last validation within the budget, None if there was none.
        good_sparsity: what was asked for then.
        back: whether the weights go back to those of that validation now.
        done: whether no more is tried.
    """

    levels: tuple[tuple[int, float], ...]
    until: int
    reference: float | None
    good: int | None
    good_sparsity: float
    back: bool
    done: bool

    @property
    def final_sparsity(self) -> float:
        """What is asked for now."""
        return self.levels[-1][1]

    @property
    def begin_step(self) -> int:
        """From when on validations count."""
        return self.levels[0][0]

    @property
    def end_step(self) -> int:
        """The latest change if no more is tried; else when no more is taken."""
        return self.levels[-1][0] if self.done else max(self.until, self.levels[-1][0])

    def resolve(self, total_steps: int | None) -> Told:
        """Return this schedule: it is in whole steps."""
        return self

    def last_update(self, step: int) -> int | None:
        """Return the step of the newest change not after `step`, or None before the first."""
        return next((at for at, _ in reversed(self.levels) if at <= step), None)

    def sparsity(self, step: int) -> float:
        """Return what is asked for at `step`."""
        return next((sparsity for at, sparsity in reversed(self.levels) if at <= step), 0.0)

    def closed(self) -> Told:
        """Return the schedule of a run that ends with what was good."""
        return replace(self, levels=(*self.levels[:-1], (self.levels[-1][0], self.good_sparsity)), done=True)
