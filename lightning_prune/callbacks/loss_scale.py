"""By what a loss scaler has multiplied gradients when an optimizer is about to step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

if TYPE_CHECKING:
    import pytorch_lightning as pl


def plain_optimizer(optimizer: Any) -> Optimizer:
    """Return the torch optimizer in Lightning's wrapper, or the one given."""
    return getattr(optimizer, "optimizer", optimizer) if not isinstance(optimizer, Optimizer) else optimizer


def loss_scale(trainer: pl.Trainer) -> float:
    """Return the factor on the loss; 1 without a scaler."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())


def grad_scale(trainer: pl.Trainer, optimizer: Any) -> float:
    """Return the loss scale that gradients still carry here: fused optimizers take it out themselves, in their step."""
    return loss_scale(trainer) if getattr(plain_optimizer(optimizer), "_step_supports_amp_scaling", False) else 1.0
