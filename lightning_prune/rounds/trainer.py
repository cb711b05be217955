"""The trainers of pruning rounds: a new one each time, a fit, and what is measured after it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info as say

from lightning_prune import families
from lightning_prune.families import LightningDataModule, LightningModule, Trainer
from lightning_prune.shrink import whole_again

__all__ = [
    "LightningDataModule",
    "LightningModule",
    "MakeTrainer",
    "evaluate",
    "is_first_rank",
    "new_trainer",
    "say",
    "seed_everything",
    "train",
]

MakeTrainer = Callable[[], Trainer] | Mapping[str, Any]
"""Makes a new Trainer each time it is called; or the arguments of one, which are copied each time."""


def new_trainer(make: MakeTrainer, model: LightningModule) -> Trainer:
    """Return a new trainer, of the model's package where its arguments are given.

    Raises ValueError if the one that is made has run already: its fit would do nothing.
    """
    trainer = make() if callable(make) else families.of(model).Trainer(**copy.deepcopy(dict(make)))
    if trainer.state.fn is not None:
        raise ValueError("make_trainer() gave a Trainer that has run already: it must make a new one each time")
    return trainer


def train(trainer: Trainer, model: LightningModule, data: LightningDataModule | None) -> dict[str, float]:
    """Fit, and return the trainer's metrics and those of a test. Raises KeyboardInterrupt where either broke off.

    A model that the trainer's strategy has taken apart over ranks is a plain one again after it.
    """
    trainer.fit(model, datamodule=data)
    _stop_if_told(trainer)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return metrics | evaluate(trainer, model, data, ("test",))


def evaluate(
    trainer: Trainer, model: LightningModule, data: LightningDataModule | None, stages: Sequence[str]
) -> dict[str, float]:
    """Return the metrics of those stages, "validate" and "test", for which there are a step and a loader.

    The model is a plain one before and after, whatever the trainer's strategy makes of it.
    """
    runs = {"validate": ("val_dataloader", "validation_step"), "test": ("test_dataloader", "test_step")}
    found: dict[str, float] = {}
    is_overridden = families.part(families.of(model), "utilities.model_helpers.is_overridden")
    for stage in stages:
        loader, step = runs[stage]
        if is_overridden(loader, model if data is None else data) and is_overridden(step, model):
            run = trainer.validate if stage == "validate" else trainer.test
            whole_again(model)
            for metrics in run(model, datamodule=data, verbose=False):
                found |= {name: float(value) for name, value in metrics.items()}
            _stop_if_told(trainer)
    whole_again(model)
    return found


def _stop_if_told(trainer: Trainer) -> None:
    """Raise KeyboardInterrupt if the trainer was told to stop: a SIGTERM in a last batch it takes, and goes on."""
    if trainer.interrupted or getattr(trainer, "received_sigterm", False):
        raise KeyboardInterrupt


def is_first_rank(model: Any) -> bool:
    """Whether this process is the one that writes."""
    trainer = getattr(model, "_trainer", None)
    return trainer is None or trainer.is_global_zero


def seed_everything(seed: int) -> None:
    """Seed Python, numpy, torch and the workers of loaders."""
    families.default().seed_everything(seed, workers=True, verbose=False)
