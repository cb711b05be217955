"""What fails on one rank alone: a scenario of ranks.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.gate import SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.pattern import Channel, Element
from lightning_prune.targets import Found, Targets
from tests.distributed.regression import SCHEDULE, TIMEOUT, Regression, trainer_of, what_failed


class BreaksAWeight(Callback):
    """Puts a NaN into a weight on the last rank alone, right before the masks are updated."""

    def __init__(self, at: int, name: str) -> None:
        self.at, self.name = at, name

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.at and trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                pl_module.get_parameter(self.name).view(-1)[3] = float("nan")


class Picky:
    """A criterion that raises on the last rank alone, and on no other."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        if dist.get_rank() == dist.get_world_size() - 1:
            raise self.error
        return weight.abs()


class OneRankFindsNothing(Targets):
    """Rules that match nothing on the first rank."""

    def find(self, model: nn.Module, frozen: bool = False) -> Found:
        return (Targets(include=("nowhere",)) if dist.get_rank() == 0 else Targets()).find(model, frozen)


FAILURES: dict[str, Callable[[], tuple[Pruner | LearnedMasks, list[Callback]]]] = {
    "nan": lambda: (Pruner(SCHEDULE), [BreaksAWeight(4, "net.2.weight")]),
    "nan in units": lambda: (Pruner(SCHEDULE, pattern=Channel()), [BreaksAWeight(6, "net.0.weight")]),
    "nan between updates": lambda: (
        LearnedMasks(SCHEDULE, SoftThreshold(), None, Element()),
        [BreaksAWeight(5, "net.0.weight")],
    ),
    "criterion": lambda: (Pruner(SCHEDULE, Picky(KeyError("mine"))), []),
    "long text": lambda: (Pruner(SCHEDULE, Picky(ValueError("x" * 5000))), []),
    "before training": lambda: (Pruner(SCHEDULE, targets=OneRankFindsNothing()), []),
}


def fail(folder: Path, processes: int) -> dict[str, Any]:
    """Return the error that this rank gets where one rank fails, and that callbacks save afterwards on all."""
    found: dict[str, Any] = {}
    for name, make in FAILURES.items():
        pruner, breaking = make()
        place = folder / "fail" / name.replace(" ", "_")
        pruning = PruningCallback(pruner)
        saving = ModelCheckpoint(place, "{step}", every_n_train_steps=100, save_on_exception=True)
        callbacks = [*breaking, pruning, saving, OnExceptionCheckpoint(place)]
        trainer = trainer_of(DDPStrategy(timeout=TIMEOUT), processes, callbacks)
        model = Regression()
        try:
            trainer.fit(model)
        except Exception as error:
            found[name] = what_failed(error, trainer, pruning) | {
                "saved": sorted(file.name for file in place.glob("*.ckpt")) if trainer.global_rank == 0 else [],
                "cause": type(error.__cause__).__name__,
            }
    return found
