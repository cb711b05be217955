"""What looks at a run from inside: masks at every batch, pruned entries at every step, outputs before the strip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import PruningCallback
from tests.guarantees.helpers import MakeOptimizer, Net, bits, draw


class Record:
    """What a run's masks did, looked at after every batch."""

    def __init__(self, model: Net, callback: PruningCallback) -> None:
        self.callback = callback
        self.rows: list[tuple[int, int | None, int]] = []
        self.masks: list[dict[str, Tensor]] = []
        self.updates: list[int | None] = []
        model.after_batch.append(self.look)

    def look(self, trainer: pl.Trainer) -> None:
        masks = {n: w.mask for n, w in self.callback.pruner.masks.items()}
        if not self.masks or any(m is not self.masks[-1][n] for n, m in masks.items()):
            self.masks.append(masks)
            self.updates.append(self.callback.pruner.last_update)
        dropped = sum(int((~m).sum()) for m in masks.values())
        self.rows.append((trainer.global_step, self.callback.pruner.last_update, dropped))


class Spy(Checkpoint):
    """Look at pruned entries after every step of every optimizer, after the pruning callback's own hook."""

    def __init__(self, callback: PruningCallback) -> None:
        self.callback = callback
        self.late: list[int] = []
        self.early: list[int] = []

    def alive(self) -> int:
        """How many pruned entries are not zero."""
        if not self.callback.pruner.attached:
            return 0
        masks = self.callback.pruner.masks
        return sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks.values())

    def watched(self, make: MakeOptimizer) -> MakeOptimizer:
        """The optimizer with a hook that comes before the pruning callback's."""

        def made(parameters: Any) -> Optimizer:
            optimizer = make(parameters)
            optimizer.register_step_post_hook(lambda *_: self.early.append(self.alive()))
            return optimizer

        return made

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.late.append(self.alive()))


def outputs(net: nn.Module) -> list[Tensor]:
    """Outputs for random inputs while training and in evaluation; the state is as before afterwards."""
    state, training, found = bits(net), net.training, list[Tensor]()
    with torch.random.fork_rng(), torch.no_grad():
        for mode in (True, False):
            for seed in range(3):
                torch.manual_seed(seed)
                found.append(net.train(mode)(draw(seed, next(net.parameters()))[0]).clone())
    net.load_state_dict(state)
    net.train(training)
    return found


class Masked(Checkpoint):
    """Keeps the outputs at the end of training, with the masks on. As a `Checkpoint` it comes after all others."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.outputs: list[Tensor] = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.pruning.pruner.attached
        self.outputs = outputs(pl_module.get_submodule("net"))


def by_step(folder: Path) -> list[Path]:
    """Return the files named `step=NUMBER.ckpt` of a folder, by step."""
    return sorted(folder.glob("step=*.ckpt"), key=lambda file: int(file.stem.partition("=")[2]))
