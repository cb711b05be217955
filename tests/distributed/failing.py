"""What fails on one piece, or needs whole weights: a scenario of pieces.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, StochasticWeightAveraging, WeightAveraging

from lightning_prune import LearnedMasks, Pruner, PruningCallback
from lightning_prune.criterion import FilterNorm, FirstOrderDelta, Wanda
from lightning_prune.pattern import Column, Element, NofM, Row
from lightning_prune.pruning import collecting
from lightning_prune.reconstruction import SparseGPT
from lightning_prune.selection import Histogram
from lightning_prune.shards import local
from tests.distributed.fits import Sharded, strategy_of
from tests.distributed.one_fails import Picky
from tests.distributed.regression import SCHEDULE, trainer_of, what_failed


class BreaksAPiece(Callback):
    """Puts a NaN into what the last rank has of a weight, right before the masks are updated."""

    def __init__(self, name: str = "net.2.weight") -> None:
        self.name = name

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 4 and trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                local(pl_module.get_parameter(self.name)).view(-1)[3] = float("nan")


class PickyOfEntries(Picky):
    """One that scores each entry by itself."""

    of_entries = True


class Ends(Callback):
    """Ends a run that was not refused."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 3:
            raise ValueError("was not refused")


FAILURES: dict[str, Callable[[], dict[str, Any]]] = {
    "nan": lambda: {"breaking": [BreaksAPiece()]},
    "nan in scores": lambda: {"breaking": [BreaksAPiece()], "pruner": Pruner(SCHEDULE, FirstOrderDelta())},
    "nan in units": lambda: {"breaking": [BreaksAPiece()], "pruner": Pruner(SCHEDULE, pattern=Row())},
    "nan in a histogram": lambda: {"breaking": [BreaksAPiece()], "pruner": Pruner(SCHEDULE, selection=Histogram())},
    "criterion": lambda: {"pruner": Pruner(SCHEDULE, PickyOfEntries(KeyError("mine")))},
    "silent criterion": lambda: {"pruner": Pruner(SCHEDULE, PickyOfEntries(ValueError()))},
    "rebuilt": lambda: {"pruner": Pruner(SCHEDULE, reconstruction=SparseGPT())},
    "learned": lambda: {"pruner": LearnedMasks(SCHEDULE)},
    "learned weights": lambda: {"pruner": LearnedMasks(SCHEDULE, pattern=Element())},
    "rewind": lambda: {"callback": {"rewind": 0}, "model": Adagrad},
    "inputs": lambda: {"pruner": Pruner(SCHEDULE, Wanda())},
    "average": lambda: {"behind": [WeightAveraging()]},
    "stochastic average": lambda: {"behind": [StochasticWeightAveraging(0.1)]},
    "too large": lambda: {"pruner": Pruner(SCHEDULE, FilterNorm()), "most": 100},
    "too large columns": lambda: {"pruner": Pruner(SCHEDULE, pattern=Column()), "most": 100},
    "few rows": lambda: {"pruner": Pruner(SCHEDULE, pattern=Row()), "most": 28, "behind": [Ends()]},
    "too many rows": lambda: {"pruner": Pruner(SCHEDULE, pattern=Row()), "most": 27},
    "entries": lambda: {"pruner": Pruner(SCHEDULE, pattern=NofM(2, 4)), "most": 27, "behind": [Ends()]},
}


class Adagrad(Sharded):
    """Has an optimizer that does not begin at zero."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(self.parameters(), initial_accumulator_value=0.1)


def fail(layout: str, folder: Path) -> dict[str, Any]:
    """Return the error that this rank gets, how far it came, and whether masks are left on the model."""
    found: dict[str, Any] = {}
    for name, make in FAILURES.items():
        case = make()
        breaking: list[Callback] = case.pop("breaking", [])
        collecting.MOST = case.pop("most", 1 << 31)
        pruning = PruningCallback(case.pop("pruner", Pruner(SCHEDULE)), **case.pop("callback", {}))
        strategy, processes = strategy_of(layout, True), int(sys.argv[3])
        callbacks = [*breaking, pruning, *case.pop("behind", [])]
        trainer = trainer_of(strategy, processes, callbacks, enable_checkpointing=False)
        try:
            trainer.fit(case.pop("model", Sharded)(layout))
        except Exception as error:
            found[name] = what_failed(error, trainer, pruning)
    return found
