"""`lightning-prune train`: what a run leaves behind, and that it can be repeated, resumed and broken off."""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from .conftest import SHORT, Command, Said


class CtrlC(Callback):
    """Breaks off after some steps, as a user would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.after:
            raise KeyboardInterrupt


class Broken(Callback):
    """A mistake in the user's own code."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise ValueError("mine")


def train(command: Command, folder: str, *overrides: str) -> Said:
    return command("train", "-cn", "digits_mlp", f"hydra.run.dir={folder}", *SHORT, *overrides)


def rows(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def report(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))


def model(folder: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(folder) / "model.pt", weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_g19_a_run_leaves_files_that_agree(command: Command) -> None:
    said = train(command, "run")
    assert (said.status, said.err) == (0, "")
    assert "was not set, defaulting" not in said.out  # Lightning's, of every checkpoint written
    files = {"config.yaml", "metrics.csv", "hparams.yaml", "report.json", "report.png", "model.pt"}
    files |= {"report.html", "details.json"}
    assert {path.name for path in Path("run").iterdir()} == files | {"checkpoints"}

    found = report("run")
    weights = [weight for weight in model("run").values() if weight.dim() >= 2]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == found["zeros"] == round(0.9 * found["prunable"])
    logged = [row["pruning/sparsity"] for row in rows("run") if row["pruning/sparsity"]]
    assert float(logged[-1]) == pytest.approx(found["sparsity"], abs=0)
    tested = [row["test/accuracy"] for row in rows("run") if row["test/accuracy"]]
    assert float(tested[0]) == pytest.approx(found["test"]["test/accuracy"], abs=1e-7)

    assert (found["recipe"], found["seed"], found["steps"], found["interrupted"]) == ("digits_mlp", 0, 36, False)
    assert found["versions"]["torch"] == torch.__version__
    assert (Path("run") / "report.png").read_bytes()[1:4] == b"PNG"
    assert "all prunable" in said.out
    assert "test/accuracy" in said.out
    assert all(str(Path("run") / file) in said.out for file in files - {"hparams.yaml"})


@pytest.mark.slow
def test_what_lightning_says_goes_to_stdout_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [sys.executable, "-m", "lightning_prune", "train", "-cn", "digits_mlp", "hydra.run.dir=run", *SHORT]
    path = str(Path(__file__).parents[2])
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pruning: Polynomial(" in done.stdout
    assert ": done" not in done.stdout


@pytest.mark.slow
def test_g25_the_saved_config_reproduces_the_run_to_the_bit(command: Command) -> None:
    train(command, "one", "pruner/schedule=geometric", "seed=3")
    said = command("train", "--config-dir", "one", "-cn", "config", "hydra.run.dir=two")
    assert said.status == 0
    assert same(model("one"), model("two"))
    for file in ("metrics.csv", "config.yaml", "report.json"):
        assert (Path("one") / file).read_text(encoding="utf-8") == (Path("two") / file).read_text(encoding="utf-8"), (
            file
        )


@pytest.mark.slow
def test_g25_editing_the_saved_config_has_an_effect(command: Command) -> None:
    train(command, "one")
    said = command(
        *("train", "-cd", "one", "-cn", "config", "hydra.run.dir=two", "pruner.schedule.final_sparsity=0.5", "seed=1")
    )
    assert said.status == 0
    assert report("two")["final_sparsity"] == 0.5


def test_a_run_goes_to_a_folder_of_its_own(command: Command) -> None:
    said = command("train", "-cn", "digits_mlp", *SHORT, "recipe=mine")
    assert said.status == 0
    (folder,) = Path("runs/mine").iterdir()
    assert report(str(folder))["recipe"] == "mine"
    again = train(command, str(folder))
    assert again.status == 1
    assert "holds a run already" in again.err


@pytest.mark.slow
def test_multirun_is_a_folder_for_each_value(command: Command) -> None:
    said = command("train", "-cn", "digits_mlp", "-m", *SHORT, "pruner.schedule.final_sparsity=0.5,0.8")
    assert said.status == 0
    (sweep,) = Path("runs/digits_mlp").iterdir()
    assert [report(str(sweep / job))["final_sparsity"] for job in "01"] == [0.5, 0.8]


def test_g2_resumes_from_a_checkpoint(command: Command) -> None:
    stop = ["+callbacks.stop._target_=tests.cli.test_train.CtrlC", "+callbacks.stop.after=24", "callbacks=checkpoint"]
    train(command, "whole")
    assert train(command, "begun", *stop).status == 130
    said = train(command, "ended", "ckpt_path=begun/checkpoints/last.ckpt", "callbacks=checkpoint")
    assert said.status == 0
    assert "ended/checkpoints/last.ckpt" in said.out
    assert report("begun")["steps"] == 24
    assert same(model("whole"), model("ended"))


@pytest.mark.slow
def test_g23_keeps_the_best_model_at_the_final_sparsity(command: Command) -> None:
    said = train(command, "run", "callbacks=sparse_checkpoint", "trainer.log_every_n_steps=5")
    assert said.status == 0
    best = torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert sum(int((weight == 0).sum()) for weight in best.values() if weight.dim() >= 2) == report("run")["zeros"]


def test_a_run_broken_off_says_so_and_saves_what_there_is(command: Command) -> None:
    said = train(command, "run", "+callbacks.stop._target_=tests.cli.test_train.CtrlC", "+callbacks.stop.after=8")
    assert said.status == 130
    found = report("run")
    assert (found["interrupted"], found["steps"]) == (True, 8)
    zeros = sum(int((weight == 0).sum()) for weight in model("run").values() if weight.dim() >= 2)
    assert zeros == found["zeros"] > 0
    assert "interrupted after 8 steps" in said.out


def test_a_mistake_in_the_users_code_keeps_its_traceback(command: Command) -> None:
    with pytest.raises(ValueError, match="mine"):
        train(command, "run", "+callbacks.broken._target_=tests.cli.test_train.Broken")


@pytest.mark.filterwarnings("ignore:cifar10_pruning. reached a sparsity of")  # a histogram is not exact
def test_pruning_hparams_prune_as_they_say_without_quotes(command: Command) -> None:
    hparams = (
        "name=cifar10_pruning,begin_pruning_step=10,end_pruning_step=30,target_sparsity=0.9,pruning_frequency=5,"
        "sparsity_function_begin_step=10,sparsity_function_end_step=30,threshold_decay=0.0,do_not_prune=[layers.4]"
    )
    said = train(command, "run", f"pruning_hparams={hparams}")
    assert said.status == 0
    steps = [int(row["step"]) for row in rows("run") if row["pruning/sparsity"]]
    assert steps == [10, 15, 20, 25, 30]
    assert [weight["name"] for weight in report("run")["weights"]] == ["net.layers.0.weight", "net.layers.2.weight"]
    assert "cifar10_pruning" in said.out
    again = command("train", "-cd", "run", "-cn", "config", "hydra.run.dir=again")
    assert again.status == 0
    assert same(model("run"), model("again"))


def test_shows_the_config_and_trains_nothing(command: Command) -> None:
    said = command("train", "-cn", "digits_mlp", "--cfg", "job")
    assert said.status == 0
    assert "_target_: lightning_prune.PruningCallback" in said.out
    assert not Path("runs").exists()


@pytest.mark.slow
def test_g23_the_best_model_by_a_metric_of_the_users_own(command: Command) -> None:
    best = ("callbacks=sparse_checkpoint", "callbacks.best.monitor=val/loss")
    wrong = train(command, "run", *best)
    assert wrong.status == 1
    assert "callbacks.best.monitor=val/loss with mode=max keeps the worst: set callbacks.best.mode=min" in wrong.err
    gone = train(command, "gone", "callbacks=sparse_checkpoint", "callbacks.best.monitor=val/f1")
    assert gone.status == 1
    assert "logs val/accuracy, val/loss" in gone.err
    assert train(command, "run", *best, "callbacks.best.mode=min").status == 0
    assert Path("run/checkpoints/best.ckpt").is_file()


@pytest.mark.slow
def test_a_log_file_of_the_users_own_is_left_alone(command: Command, tmp_path: Path) -> None:
    """Lightning's own handler is turned to stdout for the run, and no other."""
    handler = logging.FileHandler(tmp_path / "mine.log", encoding="utf-8")
    logger = logging.getLogger("pytorch_lightning")
    logger.addHandler(handler)
    stream = handler.stream
    try:
        assert command("train", "-cn", "digits_mlp", *SHORT, "hydra.run.dir=run").status == 0
        assert handler.stream is stream
    finally:
        logger.removeHandler(handler)
        handler.close()
