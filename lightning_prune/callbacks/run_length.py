"""How many optimizer steps a run will take, where Lightning's own estimate does not know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_prune import families

if TYPE_CHECKING:
    import pytorch_lightning as pl


def run_length(trainer: pl.Trainer) -> int | None:
    """Return how many optimizer steps the run takes as `trainer.global_step` counts them, or None if nobody knows.

    Raises:
        ValueError: there is not one batch to train on.
    """
    timer = families.every("callbacks.Timer")
    if any(isinstance(c, timer) and c.time_remaining() is not None for c in trainer.callbacks):  # pyright: ignore
        return None
    estimate = trainer.estimated_stepping_batches  # loads the data as well
    if trainer.num_training_batches == 0 and trainer.max_steps != 0:
        raise ValueError(
            "there is no batch to train on, so nothing would be pruned: the training loader is empty, or "
            f"limit_train_batches={trainer.limit_train_batches!r} leaves none of it"
        )
    epochs = _epochs(trainer)
    if epochs is None:
        return None if estimate == float("inf") or estimate < 0 else int(estimate)
    # The estimate knows one optimizer, one accumulation for all epochs, and nothing of SWA's extra epoch for BatchNorm.
    # Under manual optimization each optimizer is taken to step once a batch, until `RunPace` knows better.
    batches = trainer.num_training_batches
    steps = sum(math.ceil(batches / _accumulation(trainer, epoch)) for epoch in range(epochs))
    steps *= max(1, len(trainer.optimizers))
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def batches_of(trainer: pl.Trainer) -> int | None:
    """Return how many batches the run takes if its epochs end it, or None if nobody knows; the data are loaded."""
    epochs = _epochs(trainer)
    return None if epochs is None else epochs * int(trainer.num_training_batches)


def _epochs(trainer: pl.Trainer) -> int | None:
    epochs = trainer.max_epochs
    if trainer.num_training_batches == float("inf") or epochs is None or epochs == -1:
        return None
    averaging = families.every("callbacks.StochasticWeightAveraging")
    swa = [c for c in trainer.callbacks if isinstance(c, averaging)]  # pyright: ignore
    return min([max(1, epochs), *(getattr(c, "_max_epochs", epochs) for c in swa)])


def _accumulation(trainer: pl.Trainer, epoch: int) -> int:
    scheduler = families.every("callbacks.GradientAccumulationScheduler")
    for callback in trainer.callbacks:  # pyright: ignore
        if isinstance(callback, scheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches
