"""A small classifier on made-up data, and a wandb that writes into a temporary folder and nowhere else."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

STEPS = 40
"""Optimizer steps of a run: four epochs of ten."""


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.after_batch: Callable[[], object] = bool
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 4))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.after_batch()  # Lightning calls this after the hooks of all callbacks

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(80, 20, generator=generator)
        return DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=8)


MakeTrainer = Callable[..., Trainer]


@pytest.fixture(scope="session")
def make_trainer() -> MakeTrainer:
    def make(callbacks: Sequence[Callback], **options: Any) -> Trainer:
        quiet: dict[str, Any] = {
            "accelerator": "cpu",
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "logger": False,
            "max_epochs": 4,
        }
        return Trainer(callbacks=list(callbacks), **{**quiet, **options})

    return make


@pytest.fixture(scope="module")
def wandb_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Offline, silent, and without a trace in the user's own folders."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DIR", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
            (folder / name.lower()).mkdir()
            patch.setenv(f"WANDB_{name}", str(folder / name.lower()))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.delenv("WANDB_API_KEY", raising=False)
        yield folder
