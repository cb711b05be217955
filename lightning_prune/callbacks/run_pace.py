"""Under manual optimization: how many optimizer steps a batch makes is watched, and the window follows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_prune.callbacks.run_length import batches_of
from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner

if TYPE_CHECKING:
    import pytorch_lightning as pl

_APART = 0.05
"""The window follows where the length expected is this share away from the one it was resolved for."""


class RunPace:
    """Expect the run's length from the optimizer steps and batches so far, while its window is not over.

    What it does follows from these, and from the length in the pruner's state, so that resumed runs go on exactly.

    Args:
        batches: how many batches the run takes.
        most: the bound on optimizer steps, -1 for none.
        steps: how many came so far.
        at: how many batches were over when the latest of them came: where only some batches make steps, the pace is
            right there.
    """

    def __init__(self, batches: int, most: int, steps: int = 0, at: int = 0) -> None:
        self.batches = batches
        self.most = most
        self._steps = steps
        self._at = at
        self._most_a_batch = 1
        self._planned: int | None = None  # the length before it followed
        self._told = self._warned = False

    @staticmethod
    def of(trainer: pl.Trainer, length: int | None, saved: Mapping[str, int], resumed: bool) -> RunPace | None:
        """Return it for a run in which it has something to do: length and state are those of the run's first part."""
        module = trainer.lightning_module
        if module.automatic_optimization or length is None or (resumed and not saved):
            return None
        if saved:
            return RunPace(**saved)
        batches = batches_of(trainer)
        return None if batches is None else RunPace(batches, trainer.max_steps)

    def guesses(self, length: int | None, pruner: Pruner | LearnedMasks) -> bool:
        """Return whether `length` is no ground to refuse a window that is given in optimizer steps."""
        return length != self.most and not _shares(pruner)

    def state_dict(self) -> dict[str, int]:
        """Return plain numbers."""
        return {"batches": self.batches, "most": self.most, "steps": self._steps, "at": self._at}

    def follow(self, trainer: pl.Trainer, pruner: Pruner | LearnedMasks, title: str) -> None:
        """Have shares of the run refer to the length now expected; warn if a window in steps will not be over by then.

        Call it at the end of a batch, before the update.
        """
        done: int = cast(Any, trainer.fit_loop.epoch_loop.batch_progress.total).processed
        steps = trainer.global_step
        if steps != self._steps:
            self._most_a_batch = max(self._most_a_batch, steps - self._steps)
            self._steps, self._at = steps, done
        over = pruner.last_update is not None and pruner.last_update >= pruner.resolved_schedule.end_step
        if over or not done or not steps:
            return
        at = self._at if done < self.batches else done
        expected, length = self._bounded(round(steps / at * self.batches)), pruner.length
        late = pruner.resolved_schedule.end_step > expected or done >= self.batches
        if _shares(pruner) and length and expected != length and (late or abs(expected - length) > _APART * length):
            self._resolve(pruner, expected, length, title)
        self._tell(pruner, steps, title)
        # Optimizers may step in turn, and the next step be due now: the most that this pace can come to.
        most = self._bounded(round((steps + self._most_a_batch) / done * self.batches))
        if pruner.resolved_schedule.end_step > most and not self._warned:
            self._warned = True
            _warn(
                f"{title}: {_position(pruner, most)} will not be reached: {steps} optimizer steps in {done} batches "
                f"make about {expected} in the run's {self.batches}. Set end_step to that at most, or give "
                "begin_step and end_step as shares of the run"
            )

    def _bounded(self, steps: int) -> int:
        return steps if self.most == -1 else min(steps, self.most)

    def _resolve(self, pruner: Pruner | LearnedMasks, expected: int, length: int, title: str) -> None:
        try:
            pruner.resolve(expected)
        except ValueError as error:  # rounds that do not fit
            if not self._warned:
                self._warned = True
                _warn(f"{title}: the run takes about {expected} optimizer steps, not {length}, and {error}")
            return
        self._planned = self._planned or length

    def _tell(self, pruner: Pruner | LearnedMasks, steps: int, title: str) -> None:
        schedule = pruner.resolved_schedule
        if self._planned and not self._told and schedule.last_update(steps) is not None:
            rank_zero_info(
                f"{title}: the run takes about {pruner.length} optimizer steps, not {self._planned} (one a batch and "
                f"optimizer): begin_step={schedule.begin_step}, end_step={schedule.end_step}"
            )
            self._told = True


def _shares(pruner: Pruner | LearnedMasks) -> bool:
    schedule = pruner.schedule
    return schedule is None or isinstance(schedule.begin_step, float) or isinstance(schedule.end_step, float)


def _position(pruner: Pruner | LearnedMasks, most: int) -> str:
    schedule = pruner.resolved_schedule
    begin = f"begin_step={schedule.begin_step}, and so " if schedule.begin_step >= most else ""
    return f"{begin}end_step={schedule.end_step}"


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)
