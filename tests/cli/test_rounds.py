"""`lightning-prune train` and `plan` of a recipe in rounds: what a run leaves, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from safetensors.torch import load_file

from lightning_prune.shrink import load_shrunk
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import digits_cnn

from .conftest import Command, Said

SHORT = ("first.max_epochs=2", "trainer.max_epochs=1", "trainer.limit_train_batches=8", "pruner.maximum_rounds=2")
UNITS = [(32, 23, 17), (64, 45, 32), (64, 45, 32)]


class Interrupted(Callback):
    """Ctrl-C, in the rounds from `at` on: known by the widths of the model."""

    def __init__(self, below: int) -> None:
        self.below = below

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if next(pl_module.parameters()).shape[0] < self.below:
            raise KeyboardInterrupt


def train(command: Command, folder: str, *overrides: str) -> Said:
    return command("train", "-cn", "digits_cnn_iterative", f"hydra.run.dir={folder}", *SHORT, *overrides)


def read(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_run_leaves_rounds_report_picture_and_the_shrunk_model(command: Command) -> None:
    said = train(command, "run")
    assert (said.status, said.err) == (0, "")
    files = {"config.yaml", "rounds.json", "report.json", "report.png", "model.safetensors", "shrunk.json", "model.pt"}
    assert {path.name for path in Path("run").iterdir()} == files | {"rounds", "report.html"}
    assert all(f"run/{file}" in said.out for file in files)
    for number in range(3):
        held = {path.name for path in Path(f"run/rounds/{number}").iterdir()}
        assert held == {"model.safetensors", "shrunk.json", "metrics.csv", "hparams.yaml"}
        with Path(f"run/rounds/{number}/metrics.csv").open(encoding="utf-8", newline="") as stream:
            steps = [int(row["step"]) for row in csv.DictReader(stream) if row["val/loss"]]
        assert steps == ([7, 15] if number == 0 else [7])

    report, rounds = read("run/report.json"), read("run/rounds.json")
    assert report["rounds"] == rounds["rounds"]
    assert report["stopped"] == rounds["stopped"] == "stopped after round 2: maximum_rounds=2 is reached"
    assert report["stopped"] in said.out
    assert [list(each["units"].values()) for each in rounds["rounds"]] == [
        [[dense, dense] for dense, _, _ in UNITS],
        [[dense, first] for dense, first, _ in UNITS],
        [[first, second] for _, first, second in UNITS],
    ]
    assert (report["recipe"], report["seed"], report["interrupted"]) == ("digits_cnn_iterative", 0, False)
    assert report["test"] == {name: v for name, v in rounds["rounds"][-1]["metrics"].items() if name[:4] == "test"}
    assert report["parameters"][1] == sum(t.numel() for n, t in load_file("run/model.safetensors").items() if _is(n))
    assert Path("run/report.png").read_bytes()[1:4] == b"PNG"


def _is(name: str) -> bool:
    """Whether it is a parameter, not a buffer of BatchNorm."""
    return not any(word in name for word in ("running", "num_batches"))


@pytest.mark.slow
def test_the_model_loads_into_a_plain_one_and_other_commands_take_the_run(command: Command) -> None:
    train(command, "run")
    model = load_shrunk(Classifier(digits_cnn()), "run")
    state = torch.load("run/model.pt", weights_only=True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    said = command("train", "-cn", "digits_cnn", "weights=run/model.pt", "hydra.run.dir=further", "trainer.max_steps=2")
    assert (said.status, said.err) == (0, "")


@pytest.mark.slow
def test_goes_on_where_ctrl_c_stopped_it(command: Command) -> None:
    train(command, "whole")
    stop = ["+callbacks.stop._target_=tests.cli.test_rounds.Interrupted", "+callbacks.stop.below=20"]
    said = train(command, "parts", *stop)
    assert said.status == 130
    assert "interrupted in round 2; the same command with hydra.run.dir=parts goes on there" in said.out
    assert not Path("parts/report.json").exists()
    assert len(read("parts/rounds.json")["rounds"]) == 2

    other = train(command, "parts", "task.lr=0.1")
    assert other.status == 1
    assert "parts holds a run with another" in other.err
    assert "task.lr" in other.err

    Path("parts/config.yaml").write_text(
        Path("whole/config.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )  # without what interrupted it
    again = train(command, "parts")
    assert (again.status, again.err) == (0, "")
    assert "going on after round 1" in again.out
    one, two = (torch.load(f"{run}/model.pt", weights_only=True) for run in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert read("whole/rounds.json") == read("parts/rounds.json")


@pytest.mark.slow
def test_more_rounds_go_on_after_the_last(command: Command) -> None:
    train(command, "run")
    said = train(command, "run", "pruner.maximum_rounds=3")
    assert (said.status, said.err) == (0, "")
    assert "going on after round 2" in said.out
    assert len(read("run/rounds.json")["rounds"]) == 4


@pytest.mark.slow
def test_the_saved_config_reproduces_the_run_to_the_bit(command: Command) -> None:
    train(command, "one", "pruner/criterion=random", "seed=3")
    said = command("train", "-cd", "one", "-cn", "config", "hydra.run.dir=two")
    assert (said.status, said.err) == (0, "")
    for file in ("config.yaml", "rounds.json", "report.json"):
        assert Path("one", file).read_text(encoding="utf-8") == Path("two", file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_sweep_does_again_what_has_another_config(command: Command) -> None:
    sweep = (
        "train",
        "-cn",
        "digits_cnn_iterative",
        "-m",
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir=${seed}",
        *SHORT,
    )
    assert command(*sweep, "seed=0,1", "pruner.maximum_rounds=1").status == 0
    said = command(*sweep, "seed=0", "pruner.maximum_rounds=1")
    assert "sweep/0: finished already" in said.out
    said = command(*sweep, "seed=0", "pruner.maximum_rounds=1", "pruner.factor=0.5")
    assert (said.status, said.err) == (0, "")
    assert "its config had another pruner.factor" in said.out
    assert list(read("sweep/0/rounds.json")["rounds"][1]["units"].values()) == [[32, 16], [64, 32], [64, 32]]


@pytest.mark.slow
def test_a_dense_models_weights_in_place_of_first(command: Command) -> None:
    train(command, "dense", "pruner.maximum_rounds=0")
    said = train(command, "run", "weights=dense/model.pt", "first=null")
    assert (said.status, said.err) == (0, "")
    dense, given = (read(f"{run}/rounds.json")["rounds"][0]["metrics"] for run in ("dense", "run"))
    assert given["test/accuracy"] == dense["test/accuracy"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pruner.factor=2", "factor=2 must be a number in (0, 1], the share of units to keep"),
        ("pruner.layers=[nothing]", "layers has 'nothing', which is no group of units"),
        ("ckpt_path=some.ckpt", "rounds go on with hydra.run.dir=FOLDER"),
        ("pruner.factr=2", "unknown key 'pruner.factr': did you mean pruner.factor"),
        ("pruner.schedule.final_sparsity=0.5", "pruner.schedule"),
        ("first.max_epoch=3", "max_epoch"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(command: Command, override: str, words: str) -> None:
    override = f"+{override}" if override.startswith("first.") else override
    said = train(command, "run", override)
    assert said.status == 1
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not Path("run").exists()


def test_plan_shows_the_units_of_each_round_and_trains_nothing(command: Command) -> None:
    said = command("plan", "-cn", "digits_cnn_iterative", "pruner.maximum_rounds=2")
    assert (said.status, said.err) == (0, "")
    rows = [line.split() for line in said.out.splitlines()]
    assert ["0", "net.0.weight", "32", "23", "17"] in rows
    assert ["all", "160", "113", "81"] in rows
    assert "stopped after round 2: maximum_rounds=2 is reached" in said.out
    assert not list(Path().iterdir())
