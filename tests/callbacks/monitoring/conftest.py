"""A regression that a dense model learns in two epochs of eight steps and a sparse one never does."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

STEPS_PER_EPOCH = 8
SIZE = 16 * 8


class Loader(DataLoader[Any]):
    """Goes on in the middle of an epoch where a checkpoint was saved, whatever Lightning has fetched in advance."""

    trainer: Trainer | None = None

    def __iter__(self) -> Any:
        loop = self.trainer.fit_loop.epoch_loop if self.trainer else None
        done = loop.batch_progress.current.ready if loop is not None and loop.restarting else 0
        yield from islice(super().__iter__(), done, None)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Regression(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Linear(16, 8)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("step_loss", loss, on_step=True, on_epoch=False)
        self.log("epoch_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)

    @staticmethod
    def data() -> Loader:
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(64, 16, generator=generator)
        return Loader(TensorDataset(x, x @ torch.randn(16, 8, generator=generator)), batch_size=8)

    def train_dataloader(self) -> Loader:
        loader = self.data()
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> Loader:
        return self.data()


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    def make(callbacks: Sequence[Callback], **options: Any) -> Trainer:
        checkpointing = any(isinstance(c, ModelCheckpoint) for c in callbacks)
        quiet: dict[str, Any] = {
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": checkpointing,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 10,
            "default_root_dir": tmp_path,
        }
        return Trainer(callbacks=list(callbacks), **{**quiet, **options})

    return make


def zeros(file: str | Path) -> int:
    """Count the zeros of the prunable weight in a checkpoint."""
    weight = torch.load(file, weights_only=True)["state_dict"]["net.weight"]
    return int((weight == 0).sum())
