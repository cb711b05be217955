"""G2: a run that was killed at any moment goes on in its folder, and ends with the bits of one that was not."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.cli import claim
from lightning_prune.cli import resume as going_on

from . import killed
from .conftest import SHORT, Command
from .test_claim import HOLD, said, start

pytestmark = pytest.mark.slow  # many processes or whole trainings

OVERRIDES = (*SHORT, "callbacks.checkpoint.share=1.0")
RECIPES = {
    "digits_mlp": ("digits_mlp",),
    "a channel recipe": ("digits_cnn", "pruner/pattern=channel", "prune.shrink=true", "trainer.limit_train_batches=8"),
}
MEASURED = ("latency", "measured")
"""In names of columns: they differ from run to run."""

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.cli.killed", "lightning_prune.cli.train", "lightning_prune.cli.build"])


def words(folder: str, recipe: str = "digits_mlp", *more: str) -> list[str]:
    name, *own = RECIPES[recipe]
    return ["-cn", name, f"hydra.run.dir={folder}", *OVERRIDES, *own, *more]


def kill(moment: Callable[..., Any], args: tuple[int, ...], argv: list[str]) -> None:
    process = PROCESSES.Process(target=killed.train, args=(os.getcwd(), argv, moment, *args))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def same(one: str, other: str) -> None:
    """Weights, metrics, report: all bits; and one file of each."""
    first, second = (torch.load(Path(folder) / "model.pt", weights_only=True) for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    texts = [(Path(folder) / "metrics.csv").read_text(encoding="utf-8") for folder in (one, other)]
    if not any(word in texts[0] for word in MEASURED):
        assert texts[0] == texts[1]
    tables = [list(csv.DictReader(io.StringIO(text))) for text in texts]
    for row in (row for table in tables for row in table):
        row |= {name: "" for name in row if any(word in name for word in MEASURED)}
    assert tables[0] == tables[1]
    assert (Path(one) / "config.yaml").read_bytes() == (Path(other) / "config.yaml").read_bytes()
    reports = [json.loads((Path(folder) / "report.json").read_text(encoding="utf-8")) for folder in (one, other)]
    for report in reports:
        report.get("cost", {}).clear()  # its latencies are measured
    assert reports[0] == reports[1]
    names = [sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*")) for folder in (one, other)]
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {recipe: tmp_path_factory.mktemp("whole") / "run" for recipe in RECIPES}


@pytest.mark.parametrize(
    ("moment", "args", "recipe"),
    [
        (killed.at_batch, (20,), "digits_mlp"),  # within the second epoch
        (killed.at_batch, (19,), "a channel recipe"),
        (killed.at_replace, (5,), "digits_mlp"),  # the second copy of the metrics is there, its checkpoint is not
        (killed.in_checkpoint, (2,), "digits_mlp"),
        (killed.in_header, (), "digits_mlp"),
        (killed.at_report, (), "digits_mlp"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_G2_a_killed_run_goes_on_in_its_folder_to_the_same_bits(
    command: Command, whole: dict[str, Path], moment: Callable[..., Any], args: tuple[int, ...], recipe: str
) -> None:
    if not whole[recipe].exists():
        assert command("train", *words(str(whole[recipe]), recipe)).status == 0
    kill(moment, args, words("run", recipe))
    assert not Path("run/report.json").exists()
    found = command("train", "run", "--resume")
    assert (found.status, found.err) == (0, "")
    assert "run: goes on from run/checkpoints/last.ckpt" in found.out
    same(str(whole[recipe]), "run")
    assert not (Path("run") / claim.FILE).exists()


def test_G2_killed_again_and_again_and_before_there_is_a_checkpoint(command: Command, whole: dict[str, Path]) -> None:
    if not whole["digits_mlp"].exists():
        assert command("train", *words(str(whole["digits_mlp"]))).status == 0
    kill(killed.at_batch, (5,), words("run", "digits_mlp", "resume=true"))  # nothing was there: it begins
    assert not Path("run/checkpoints/last.ckpt").exists()
    kill(killed.at_batch, (14,), ["run", "--resume"])
    kill(killed.at_batch, (15,), words("run", "digits_mlp", "resume=true"))
    found = command("train", *words("run", "digits_mlp", "resume=true"))
    assert found.status == 0
    same(str(whole["digits_mlp"]), "run")


def test_G2_it_is_said_where_a_run_begins_again(command: Command) -> None:
    assert "run: there is no run yet, so it starts" in command("train", *words("run", "digits_mlp", "resume=true")).out
    kill(killed.at_batch, (5,), words("other"))
    found = command("train", "other", "--resume")
    assert "other: there is no checkpoints/last.ckpt yet, so the run starts from the beginning" in found.out
    same("run", "other")


def test_a_finished_run_says_so_and_stays_as_it_is(command: Command) -> None:
    command("train", *words("run"))
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()}
    for argv in (["run", "--resume"], [*words("run"), "--resume"]):
        found = command("train", *argv)
        assert (found.status, found.err) == (0, "")
        assert found.out == "run: finished already, nothing is left to do\n"
    assert before == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()}
    refused = command("train", *words("run"))
    assert refused.status == 1
    assert "lightning-prune train run --resume" in refused.err


def contents(folder: str) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file() and p.name != claim.FILE}


def test_another_config_is_refused_and_changes_nothing(command: Command) -> None:
    kill(killed.at_batch, (20,), words("run"))
    before = contents("run")
    for change, key in (("trainer.max_epochs=7", "trainer.max_epochs"), ("seed=4", "seed")):
        found = command("train", *words("run", "digits_mlp", change, "resume=true"))
        assert found.status == 1
        assert f"holds a run with another {key}" in found.err
        assert "ckpt_path=FILE" in found.err
    assert before == contents("run")


def test_a_run_that_is_still_going_on_is_not_resumed(command: Command) -> None:
    kill(killed.at_batch, (20,), words("run"))
    holder = start(HOLD, Path("run"))
    try:
        assert said(holder) == "claimed"
        found = command("train", "run", "--resume")
    finally:
        holder.kill()
        holder.communicate(timeout=60)
    assert found.status == 1
    assert "another run is going on there" in found.err
    assert not Path("run/report.json").exists()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["nowhere", "--resume"], "nowhere --resume: there is no such folder"),
        ([".", "--resume"], "there is no config.yaml in it"),
        (["run", "--resume", "-cn", "digits_mlp"], "drop -cn"),
    ],
)
def test_what_cannot_be_resumed_is_an_error(command: Command, argv: list[str], text: str) -> None:
    found = command("train", *argv)
    assert found.status == 1
    assert text in found.err


def test_a_sweep_goes_on_within_its_runs(command: Command) -> None:
    sweep = ["-cn", "digits_mlp", "-m", *OVERRIDES, "hydra.sweep.dir=sweep", "pruner.schedule.final_sparsity=0.5,0.8"]
    kill(killed.at_batch, (56,), sweep)  # the first run takes 36
    found = command("train", *sweep, "resume=true")
    assert found.status == 0
    assert "sweep/0: finished already" in found.out
    assert "sweep/1: goes on from sweep/1/checkpoints/last.ckpt" in found.out
    assert command("train", *sweep[:-2], "hydra.sweep.dir=new", "pruner.schedule.final_sparsity=0.5,0.8").status == 0
    same("new/1", "sweep/1")


def test_files_saved_after_the_point_are_saved_again_and_not_twice(command: Command) -> None:
    more = ("callbacks=sparse_checkpoint", "callbacks.best.save_top_k=2", "callbacks.best.filename='{step}'")
    assert command("train", *words("whole", "digits_mlp", *more)).status == 0
    kill(killed.at_report, (), words("run", "digits_mlp", *more))
    assert command("train", "run", "--resume").status == 0
    same("whole", "run")


def test_a_damaged_checkpoint_is_named(command: Command) -> None:
    kill(killed.at_batch, (20,), words("run"))
    Path("run/checkpoints/last.ckpt").write_bytes(b"half of it")
    found = command("train", "run", "--resume")
    assert found.status == 1
    assert "last.ckpt is no checkpoint" in found.err
    assert going_on.look(Path("run"), Path("run/config.yaml").read_text(encoding="utf-8")).checkpoint is not None


@pytest.mark.slow
def test_G2_two_processes_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """Both have their own random states in the one file."""

    def run(*argv: str) -> None:
        path = str(Path(__file__).parents[2])
        words = [sys.executable, "-m", "lightning_prune", "train", *argv]
        subprocess.run(words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=True, timeout=300)

    two = ("trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu")
    run(*words(str(tmp_path / "whole"), "digits_mlp", *two))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for file in ("report.json", "model.pt"):
        (tmp_path / "cut" / file).unlink()
    run("cut", "--resume")
    same(str(tmp_path / "whole"), str(tmp_path / "cut"))
