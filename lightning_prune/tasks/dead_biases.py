"""Dead units without their biases, for patterns that mask whole rows of weights and nothing else."""

from collections.abc import Iterator
from typing import Any, final

from torch import Tensor

from lightning_prune.callbacks import PruningCallback
from lightning_prune.families import Callback, LightningModule, Trainer


@final
class ZeroDeadBiases(Callback):
    """Keep the bias of a unit at zero once all weights that lead to it are pruned, so that the unit is silent.

    `Row` masks weights alone; a unit would go on as a constant, its bias. This acts after every batch, before every
    validation and at the end, on what the run's PruningCallbacks have pruned.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Undo what the optimizer has done to them."""
        _zero(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Silence units that have died since."""
        _zero(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Silence units that the last update has taken, before the masks are stripped."""
        _zero(trainer)


def _zero(trainer: Trainer) -> None:
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, PruningCallback) and callback.pruner.attached:
            for bias, dead in _biases(callback):
                bias.detach().masked_fill_(dead, 0.0)


def _biases(callback: PruningCallback) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every bias beside a masked weight, and which of its units are dead."""
    for weight in callback.pruner.masks.values():
        mask = weight.canonical(weight.mask)
        for module, attribute in weight.target.owners:
            bias = getattr(module, "bias", None)
            if attribute == "weight" and isinstance(bias, Tensor) and bias.shape == mask.shape[:1]:
                yield bias, ~mask.flatten(1).any(1)
