"""The two packages of Lightning, and a small net, data and a quiet trainer of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

FAMILIES = {"pytorch_lightning": pytorch_lightning, "lightning.pytorch": lightning.pytorch}
BATCHES = 10
SIZE = 8 * 20 + 20 * 4


class Family:
    """What the tests make of one package.

    Args:
        pl: the package.
        root: where its trainers write.
    """

    def __init__(self, pl: Any, root: Path) -> None:
        self.pl = pl
        self.root = root

    def net(self) -> Any:
        class Net(self.pl.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    self.net = nn.Sequential(nn.Linear(8, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 4))
                self.example_input_array = torch.zeros(2, 8)

            def forward(self, x: Tensor) -> Tensor:
                return self.net(x)

            def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
                return nn.functional.cross_entropy(self(batch[0]), batch[1])

            def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
                self.log("val_loss", self.training_step(batch, batch_idx))

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(self.parameters(), lr=0.01)

            def train_dataloader(self) -> DataLoader[Any]:
                x = torch.randn(8 * BATCHES, 8, generator=torch.Generator().manual_seed(1))
                return DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=8)

            val_dataloader = train_dataloader

        return Net()

    def trainer(self, *callbacks: Any, **options: Any) -> Any:
        quiet: dict[str, Any] = {
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": any(isinstance(c, self.pl.callbacks.Checkpoint) for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "max_epochs": 4,
            "default_root_dir": self.root,
        }
        return self.pl.Trainer(callbacks=list(callbacks), **quiet | options)

    def fit(self, *callbacks: Any, ckpt_path: Path | None = None, **options: Any) -> tuple[Any, Any]:
        """Return trainer and module after a fit."""
        trainer, net = self.trainer(*callbacks, **options), self.net()
        trainer.fit(net, ckpt_path=ckpt_path)
        return trainer, net


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Family:
    return Family(FAMILIES[request.param], tmp_path)


@pytest.fixture
def other(family: Family, tmp_path: Path) -> Family:
    """The one that `family` is not."""
    return Family(next(pl for pl in FAMILIES.values() if pl is not family.pl), tmp_path)


def zeros(model: nn.Module) -> int:
    return sum(int((p == 0).sum()) for p in model.parameters() if p.dim() > 1)
