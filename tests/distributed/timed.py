"""Prunes to milliseconds that are measured; test_measured_once.py runs it as a script.

python timed.py SCENARIO FOLDER PROCESSES
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy

from lightning_prune import Pruner, PruningCallback
from lightning_prune.budget import Latency
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from tests.distributed.regression import TIMEOUT, Regression, trainer_of, what_failed


class Keeps(Callback):
    """Keeps the state that a run has before its first step."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.measured: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.measured = self.measured or self.pruning.pruner.state_dict()["measured"]


def run(folder: Path, processes: int, table: str | None) -> dict[str, Any]:
    pruning = PruningCallback(Pruner(Polynomial(0.2, 2, 9, 2), pattern=Channel(), budget=Latency(table)))
    keeps = Keeps(pruning)
    strategy = DDPStrategy(timeout=TIMEOUT)
    trainer = trainer_of(strategy, processes, [pruning, keeps], enable_checkpointing=False)
    model = Regression(seed=int(os.environ.get("LOCAL_RANK", 0)))
    try:
        trainer.fit(model)
    except ValueError as error:
        return what_failed(error, trainer, pruning)
    assert pruning.report is not None
    return {"measured": keeps.measured, "report": pruning.report.to_dict(), "weights": model.state_dict()}


def main(scenario: str, folder: Path, processes: int) -> None:
    torch.set_num_threads(1)
    damaged = folder / "damaged.json"
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        damaged.write_text("{", encoding="utf-8")
    result = {"once": run(folder, processes, None), "damaged": run(folder, processes, str(damaged))}
    torch.save(result, folder / f"{scenario}.{os.environ.get('LOCAL_RANK', '0')}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
