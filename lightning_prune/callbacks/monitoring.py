"""Checkpoints and early stopping that look at their metric only once the model has its final sparsity.

While a model is pruned gradually its metric is best before pruning hurts. `ModelCheckpoint` then picks a model that
is not sparse, and `EarlyStopping` stops for the loss of accuracy that the schedule meant to win back afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_prune.callbacks.monitored import check_monitor
from lightning_prune.callbacks.pruning import PruningCallback
from lightning_prune.families import Callback, EarlyStopping, ModelCheckpoint

if TYPE_CHECKING:
    import pytorch_lightning as pl


class _AtFinalSparsity(Callback):
    """Tell when the monitored metric and the weights come from the final masks.

    A metric counts once Lightning has renewed it in a validation, or in a training epoch, that began after the last
    update of every PruningCallback: a validation metric from before that update, and a mean over an epoch that the
    update falls into, are metrics of other masks. Where the metric was made is seen by the object that holds it, so
    its name does not matter.
    """

    monitor: str | None
    _fresh = False
    _looked = False  # a loop that should have logged the metric has run to its end
    _epoch_began = False
    _epoch_is_final = False
    _before_epoch: Tensor | None = None
    _before_validation: Tensor | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start anew: a fit's first metrics are its own. Raises ValueError if nothing prunes in this trainer."""
        super().on_fit_start(trainer, pl_module)
        self._fresh = self._looked = self._epoch_began = self._epoch_is_final = False
        if not _pruning(trainer):
            raise ValueError(
                f"{type(self).__name__} waits for the final sparsity of a PruningCallback, but the Trainer has none: "
                "add one, or use Lightning's own class"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget scores of other masks, and see whether a resumed run is at its final sparsity already."""
        super().on_train_start(trainer, pl_module)
        if not _final(trainer):
            self._forget()
        self._begin_epoch(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note which metric was there before the epoch."""
        super().on_train_epoch_start(trainer, pl_module)
        self._epoch_began = True
        self._begin_epoch(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note which metric was there before the validation."""
        super().on_validation_start(trainer, pl_module)
        self._before_validation = self._metric(trainer)

    def _begin_epoch(self, trainer: pl.Trainer) -> None:
        self._epoch_is_final = _final(trainer)
        self._before_epoch = self._metric(trainer)

    def _metric(self, trainer: pl.Trainer) -> Tensor | None:
        return trainer.callback_metrics.get(self.monitor) if self.monitor is not None else None  # pyright: ignore

    def _may_look(self, trainer: pl.Trainer, validated: bool = False, epoch_ended: bool = False) -> bool:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return False
        if self._fresh:
            return True
        self._looked |= validated or (epoch_ended and self._epoch_began and not trainer.enable_validation)
        final = _final(trainer)
        if self.monitor is None:
            self._fresh = final
        elif final or self._looked:
            metric = self._metric(trainer)
            if metric is None:
                return self._looked  # nobody logs it: Lightning's own complaint, and not only at the final sparsity
            self._fresh = (final and validated and metric is not self._before_validation) or (
                self._epoch_is_final and metric is not self._before_epoch
            )
        return self._fresh

    def _forget(self) -> None:
        raise NotImplementedError


class SparseModelCheckpoint(_AtFinalSparsity, ModelCheckpoint):
    """A `ModelCheckpoint` that saves from the final sparsity on: the best of the sparse models, not of all.

    Why: the best score of a gradually pruned run is usually that of a dense or half-pruned model, and a score from
    before a mask update says nothing about the weights after it. This one saves nothing until every PruningCallback
    has reached the end of its schedule and the monitored metric was measured with those masks. So every file it saves
    by metric, with `every_n_train_steps`, `train_time_interval` and `save_last` too, has exactly the final sparsity,
    and its score is the score of its masks. Scores loaded from a checkpoint of a run that is now pruned further are
    forgotten.

    What does not look at the metric is not held back: `save_on_exception`, and with `save_last` the last model of a
    run that ended too early. To be able to resume from the time of pruning, put a plain `ModelCheckpoint` beside this
    one.

    Takes the arguments of `ModelCheckpoint`. Warns at the end of training if nothing could be saved.

    Raises:
        ValueError: at fit start, the Trainer has no PruningCallback.
        MisconfigurationException: after the validation before training, where the metric is named like one of
            validation and is not there; else, as with Lightning's own class, once the first epoch has not logged it.
    """

    _held_back = -1  # the step of the latest batch after which nothing could be saved

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for the metric before training. Raises MisconfigurationException, which names those that are there."""
        super().on_sanity_check_end(trainer, pl_module)
        check_monitor(trainer, self)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time by steps or by the clock, at the final sparsity."""
        if self._may_look(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        else:
            self._held_back = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time by epochs, at the final sparsity."""
        if self._may_look(trainer, epoch_ended=True):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if it is time, by epochs or by the steps before this validation, at the final sparsity."""
        before = self._fresh
        if self._may_look(trainer, validated=True):
            if self._fresh and not before and self._held_back == trainer.global_step:
                # Lightning puts off a save that is due in the batch before a validation: so do we, with the same batch.
                super().on_train_batch_end(trainer, pl_module, None, None, trainer.fit_loop.batch_idx)
            super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so if nothing was saved, because the final sparsity came too late or not at all."""
        if self.save_top_k != 0 and not self.best_model_path and not trainer.fast_dev_run:  # pyright: ignore
            why = "the run did not get there"
            if _final(trainer):
                why = "no save was due any more" if self._fresh else f"{self.monitor!r} was not measured any more"
            rank_zero_warn(f"{type(self).__name__} saved no model at the final sparsity: {why}")
        super().on_train_end(trainer, pl_module)

    def _forget(self) -> None:
        self.best_k_models = {}
        self.best_model_path = self.kth_best_model_path = ""
        self.best_model_score = self.current_score = None
        self.kth_value = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)


class SparseEarlyStopping(_AtFinalSparsity, EarlyStopping):
    """An `EarlyStopping` whose patience begins at the final sparsity.

    Why: pruning costs accuracy that training wins back after the last update. Plain early stopping compares with the
    dense model's score and ends the run in the middle of the schedule, at a sparsity nobody asked for. This one does
    not look, for `stopping_threshold`, `divergence_threshold` and `check_finite` neither, until every PruningCallback
    has reached the end of its schedule and the monitored metric was measured with those masks.

    Takes the arguments of `EarlyStopping`.

    Raises:
        ValueError: at fit start, the Trainer has no PruningCallback.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if the metric has ceased to improve, at the final sparsity."""
        if self._may_look(trainer, epoch_ended=True):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if the metric has ceased to improve, at the final sparsity."""
        if self._may_look(trainer, validated=True):
            super().on_validation_end(trainer, pl_module)

    def _forget(self) -> None:
        self.wait_count = 0
        self.best_score = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)


def _pruning(trainer: pl.Trainer) -> list[PruningCallback]:
    return [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # pyright: ignore


def _final(trainer: pl.Trainer) -> bool:
    """Return whether every PruningCallback has made the last update of its schedule."""
    for pruner in (callback.pruner for callback in _pruning(trainer)):
        if pruner.last_update is None or pruner.last_update < pruner.resolved_schedule.end_step:
            return False
    return True
