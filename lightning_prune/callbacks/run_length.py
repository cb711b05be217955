"""How many optimizer steps a run will take, where Lightning's own estimate does not know."""

from __future__ import annotations

import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging, Timer


def run_length(trainer: pl.Trainer) -> int | None:
    """Return how many optimizer steps the run takes as `trainer.global_step` counts them, or None if nobody knows.

    Raises:
        ValueError: there is not one batch to train on.
    """
    if any(isinstance(c, Timer) and c.time_remaining() is not None for c in trainer.callbacks):  # pyright: ignore
        return None
    estimate = trainer.estimated_stepping_batches  # loads the data as well
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if batches == 0 and trainer.max_steps != 0:
        raise ValueError(
            "there is no batch to train on, so nothing would be pruned: the training loader is empty, or "
            f"limit_train_batches={trainer.limit_train_batches!r} leaves none of it"
        )
    if batches == float("inf") or epochs is None or epochs == -1:
        return None if estimate == float("inf") or estimate < 0 else int(estimate)
    # The estimate knows one optimizer, one accumulation for all epochs, and nothing of SWA's extra epoch for BatchNorm.
    # Under manual optimization each optimizer is taken to step once a batch.
    swa = [c for c in trainer.callbacks if isinstance(c, StochasticWeightAveraging)]  # pyright: ignore
    epochs = min([max(1, epochs), *(getattr(c, "_max_epochs", epochs) for c in swa)])
    steps = sum(math.ceil(batches / _accumulation(trainer, epoch)) for epoch in range(epochs))
    steps *= max(1, len(trainer.optimizers))
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def _accumulation(trainer: pl.Trainer, epoch: int) -> int:
    for callback in trainer.callbacks:  # pyright: ignore
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches
