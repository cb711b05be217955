"""Trains gates on real processes; test_ranks.py runs it as a script: python ranks.py FOLDER PROCESSES.

Lightning starts the other process, which runs the same line. Every rank writes to FOLDER/RANK.pt.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.dynamic import DynamicGates
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Batches

BATCH, STEPS = 8, 12


class Small(LightningModule):
    """Norms of single examples, so that two ranks see what one process sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            *(nn.Conv2d(2, 6, 3), nn.GroupNorm(6, 6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.GroupNorm(8, 8), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(8 * 4, 3)),
        ).double()
        self.example_input_array = torch.zeros(2, 2, 6, 6, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        x = torch.randn(BATCH, 2, 6, 6, generator=torch.Generator().manual_seed(self.global_step), dtype=torch.float64)
        mine = x[self.global_rank :: self.trainer.world_size]
        return nn.functional.cross_entropy(self(mine), mine[:, :, 0, 0].argmax(1))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def fit(folder: Path, name: str, processes: int, ckpt: Path | None = None) -> dict[str, Any]:
    """Fit, and return all tensors at the end, and how many channels win at each step's end."""
    model = Small()
    callback = PruningCallback(DynamicGates(Polynomial(0.5, 2, 9, 2), strength=0.05, lr=0.01))
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=processes,
        strategy=DDPStrategy(timeout=timedelta(seconds=60)) if processes > 1 else "auto",
        callbacks=[callback, ModelCheckpoint(folder / name, "{step}", every_n_train_steps=5, save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, Batches(STEPS), ckpt_path=ckpt)
    assert callback.report is not None
    return {"state": model.state_dict(), "report": callback.report.to_dict(), "rank": trainer.global_rank}


if __name__ == "__main__":
    where, count = Path(sys.argv[1]), int(sys.argv[2])
    whole = fit(where, "whole", count)
    found = {"whole": whole, "resumed": fit(where, "resumed", count, where / "whole" / "step=5.ckpt")}
    torch.save(found, where / f"{whole['rank']}.pt")
