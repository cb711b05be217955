"""The command line with a task, data and callbacks of the user's, from either of Lightning's two packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Command

MINE = """
import torch
import {package} as pl
from torch import nn

class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

class Noted(pl.Callback):
    def on_fit_end(self, trainer, pl_module):
        print("trainer of", type(trainer).__module__)
"""
RECIPE = """
defaults: [config, _self_]
task: {_target_: mine.Task}
data: {_target_: lightning_prune.tasks.data.digits.Digits}
trainer: {max_epochs: 1, limit_train_batches: 20, enable_progress_bar: false}
callbacks: {mine: {_target_: mine.Noted}, last: {_target_: pytorch_lightning.callbacks.ModelCheckpoint}}
"""
PACKAGES = ("pytorch_lightning", "lightning.pytorch", "lightning")


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write a task of the package, and a recipe whose trainer and checkpoint are named as those of the other."""
    (tmp_path / "mine.py").write_text(MINE.format(package=request.param), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield request.param
    sys.modules.pop("mine", None)


def test_a_run_is_of_the_package_that_the_task_is_of(command: Command, package: str) -> None:
    said = command("train", "--config-dir", ".", "-cn", "mine", "hydra.run.dir=run")
    assert said.status == 0, said.err
    home = "lightning.pytorch" if package == "lightning" else package
    assert f"trainer of {home}.trainer.trainer" in said.out
    assert "90.00 %" in said.out


def test_what_is_of_the_other_package_is_named(command: Command, package: str, tmp_path: Path) -> None:
    other = "lightning.pytorch" if package == "pytorch_lightning" else "pytorch_lightning"
    (tmp_path / "theirs.py").write_text(MINE.format(package=other), encoding="utf-8")
    try:
        said = command("train", "--config-dir", ".", "-cn", "mine", "callbacks.mine._target_=theirs.Noted")
    finally:
        sys.modules.pop("theirs", None)
    home = "lightning.pytorch" if package == "lightning" else package
    assert said.status == 1
    assert f"callbacks.mine is a Callback of {other}, and the task of {home}: import one of the two in both" in said.err
