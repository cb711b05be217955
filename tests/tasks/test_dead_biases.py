"""ZeroDeadBiases: the bias of a unit is zero from when all its weights are pruned, and no other bias is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.pattern import Row
from lightning_prune.schedule import OneShot
from lightning_prune.scope import Uniform
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.digits import Digits
from lightning_prune.tasks.dead_biases import ZeroDeadBiases


class Seen(Callback):
    """How many biases are zero, layer by layer, after every batch and before every validation."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.validations: list[list[int]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append(zeros(pl_module))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validations.append(zeros(pl_module))


def biases(module: nn.Module) -> list[Tensor]:
    return [parameter.detach() for name, parameter in module.named_parameters() if name.endswith("bias")]


def zeros(module: nn.Module) -> list[int]:
    return [int((bias == 0).sum()) for bias in biases(module)]


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ConvTranspose2d(4, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 64, 8),
        nn.ReLU(),
        nn.Linear(8, 10),
    )


def test_dead_units_are_silent_from_the_update_on(make_trainer: Callable[..., Trainer]) -> None:
    seen = Seen()
    pruner = Pruner(OneShot(0.5, 3), pattern=Row(), scope=Uniform())
    callbacks = [seen, PruningCallback(pruner), ZeroDeadBiases()]
    task = Classifier(net(), lr=0.01)
    make_trainer(callbacks=callbacks, limit_train_batches=3, max_epochs=2, num_sanity_val_steps=0).fit(task, Digits())
    assert seen.batches[2] == [0, 0, 0], "not before the update"
    assert set(map(tuple, seen.validations)) == {(3, 4, 5)}
    assert zeros(task) == [3, 4, 5]
    for module in task.modules():
        if isinstance(module, (nn.ConvTranspose2d, nn.Linear)):
            rows = module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else module.weight
            assert torch.equal((rows == 0).flatten(1).all(1), module.bias == 0)
