"""Models of many kinds as users write them: exact sparsity, exact resume, and the best checkpoint can be tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback, Targets
from lightning_prune.callbacks import SparseModelCheckpoint
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Uniform

from . import byol_client, gan_client, unet_client

pytestmark = pytest.mark.slow  # many processes or whole trainings


@dataclass(frozen=True)
class Client:
    """A task, what prunes it, and one example of its data."""

    task: Callable[[], pl.LightningModule]
    pruning: Callable[[], PruningCallback]
    example: tuple[int, ...] = (8,)


def _byol() -> PruningCallback:
    return PruningCallback(Pruner(Polynomial(0.8, 0.05, 0.6, 2), targets=Targets(follow={"teacher": "student"})))


def _unet() -> PruningCallback:
    return PruningCallback(Pruner(Polynomial(0.5, 0.05, 0.6, 4), pattern=Channel()), shrink=True)


CLIENTS = {
    "gan": Client(gan_client.Task, lambda: PruningCallback(Pruner(Polynomial(0.8, 0.05, 0.6, 2), scope=Uniform()))),
    "byol": Client(byol_client.Task, _byol),
    "unet": Client(unet_client.Task, _unet, (8, 8)),
}


@dataclass(frozen=True)
class Ran:
    """What a run leaves."""

    trainer: pl.Trainer
    task: pl.LightningModule
    pruning: PruningCallback
    best: SparseModelCheckpoint
    data: DataLoader[Any]


def fit(client: Client, folder: Path, ckpt_path: Path | None = None) -> Ran:
    pl.seed_everything(1, verbose=False)
    data = DataLoader(TensorDataset(torch.randn(64, *client.example)), batch_size=8)
    best = SparseModelCheckpoint(folder, filename="best", monitor="val_loss")
    every = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    pruning = client.pruning()
    trainer = pl.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[pruning, best, every],
    )
    task = client.task()
    trainer.fit(task, data, data, ckpt_path=ckpt_path, weights_only=False)
    return Ran(trainer, task, pruning, best, data)


def matrices(state: dict[str, Tensor], *prefixes: str) -> list[Tensor]:
    return [weight for name, weight in state.items() if weight.dim() > 1 and name.startswith(prefixes)]


@pytest.mark.filterwarnings(
    "ignore:`.test.ckpt_path=.best..` is called with Trainer configured with multiple:UserWarning"
)
@pytest.mark.parametrize("name", CLIENTS)
def test_it_resumes_to_the_bit_and_tests_the_best(name: str, tmp_path: Path) -> None:
    whole = fit(CLIENTS[name], tmp_path / "whole")
    resumed = fit(CLIENTS[name], tmp_path / "resumed", tmp_path / "whole" / "epoch=1.ckpt")
    assert whole.task.state_dict().keys() == resumed.task.state_dict().keys()
    for one, other in zip(whole.task.state_dict().values(), resumed.task.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    tested = whole.trainer.test(whole.task, whole.data, ckpt_path="best", verbose=False)[0]["test_loss"]
    assert whole.best.best_model_score is not None
    assert tested == pytest.approx(float(whole.best.best_model_score), rel=1e-5)


@pytest.mark.parametrize(("name", "prefixes"), [("gan", ("generator", "critic")), ("byol", ("student", "predictor"))])
def test_its_sparsity_is_exact(name: str, prefixes: tuple[str, ...], tmp_path: Path) -> None:
    state = fit(CLIENTS[name], tmp_path).task.state_dict()
    weights = matrices(state, *prefixes)
    assert sum(int((weight == 0).sum()) for weight in weights) == round(0.8 * sum(map(torch.numel, weights)))
    for student, teacher in zip(matrices(state, "student"), matrices(state, "teacher"), strict=True):
        assert torch.equal(student == 0, teacher == 0)


def test_the_channels_of_the_u_net_are_taken_out(tmp_path: Path) -> None:
    """Half of what the channels hold, to the nearest channel, on both sides of the concatenation; it still computes."""
    ran = fit(CLIENTS["unet"], tmp_path)
    assert ran.pruning.report is not None
    assert ran.pruning.report.sparsity == pytest.approx(0.5, abs=0.03)
    task: Any = ran.task
    assert task.last[0].weight.shape[1] == task.down[0].weight.shape[0] + task.up.weight.shape[1] < 16
    assert task(torch.zeros(2, 1, 8, 8)).shape == (2, 1, 8, 8)
