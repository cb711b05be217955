"""A run of Lightning that prunes to milliseconds: what it says before, logs, resumes and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.budget import Latency
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from tests.cost.counted import counted as counted
from tests.cost.counted import of_forward

pytestmark = [
    pytest.mark.usefixtures("counted"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 2))
        self.example_input_array = torch.zeros(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        x = torch.linspace(-1, 1, 48).view(8, 6)
        return DataLoader(TensorDataset(x, x[:, :2].sin()), 2)


def fit(
    folder: Path, epochs: int = 3, ckpt_path: Path | None = None, shrink: bool = False
) -> tuple[Net, PruningCallback]:
    model = Net()
    pruner = Pruner(Polynomial(0.5, 2, 10, 2), pattern=Channel(), budget=Latency())
    pruning = PruningCallback(pruner, shrink=shrink)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[pruning, ModelCheckpoint(folder, "{step}", save_top_k=-1)],
        logger=CSVLogger(folder, name="csv", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return model, pruning


def test_half_of_the_milliseconds_go_and_the_log_has_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dense = of_forward(Net(), torch.zeros(4, 6))
    with caplog.at_level("INFO"):
        model, pruning = fit(tmp_path, shrink=True)
    report = pruning.report
    assert report is not None
    assert report.spent is not None
    assert abs(report.spent.gone - 0.5) <= report.spent.grain
    assert of_forward(model, torch.zeros(4, 6)) == pytest.approx(report.spent.left, rel=0.05)
    assert report.spent.total == pytest.approx(dense)
    header, *rows = (tmp_path / "csv" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    column = header.split(",").index("pruning/left/ms")
    left = [float(row.split(",")[column]) for row in rows if row.split(",")[column]]
    assert left == sorted(left, reverse=True)
    assert left[-1] == report.spent.left
    said = caplog.text
    assert f"ms: {dense:.3f} of {dense:.3f} are left; 0.00 % gone, 50.00 % asked for in the end" in said
    assert f"ms: {report.spent.left:.3f} of {dense:.3f} are left" in said


@pytest.mark.slow
def test_G2_a_resumed_run_ends_with_the_bits_of_the_whole_one_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, one = fit(tmp_path / "whole")
    monkeypatch.setattr("lightning_prune.budget.latency.measure_latency", None)  # not called
    resumed, other = fit(tmp_path / "resumed", ckpt_path=tmp_path / "whole" / "step=4.ckpt")
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert one.report == other.report
