"""Weight averages beside learned masks: a file holds them hard, a resumed run goes on with what they were."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

try:
    from pytorch_lightning.callbacks.weight_averaging import WeightAveraging
except ImportError:  # Lightning 2.5 has none
    WeightAveraging = ()


def put_back(trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any], soft: Any) -> None:
    """Give the tensors of a loaded checkpoint the values they had before it was written, and averages with them.

    Lightning has averages read the checkpoint before the callback gets to it, so they read it again.

    Args:
        trainer: the one that resumes.
        pl_module: the module it fits.
        checkpoint: what was loaded.
        soft: nested dicts like the checkpoint's, with the tensors that hard ones stand in place of.
    """
    _update(checkpoint, soft)
    for callback in trainer.callbacks:  # pyright: ignore
        if isinstance(callback, WeightAveraging):
            callback.on_load_checkpoint(trainer, pl_module, checkpoint)


def _update(at: Any, values: Any) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _update(at[key], value)
        else:
            at[key] = value
