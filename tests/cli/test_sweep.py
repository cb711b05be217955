"""`train -m`: goes past a run that fails, and on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import SHORT, Command, Said

HALF, MOST = "pruner.schedule.final_sparsity=0.5,0.8", "pruner.schedule.final_sparsity=0.8,0.5"


def sweep(command: Command, *overrides: str) -> Said:
    return command("train", "-m", "-cn", "digits_mlp", "hydra.sweep.dir=sweep", *SHORT, *overrides)


def written(job: int) -> int:
    return Path(f"sweep/{job}/report.json").stat().st_mtime_ns


@pytest.mark.slow
def test_goes_on_where_it_was_stopped(command: Command) -> None:
    assert sweep(command, HALF).status == 0
    first = written(0)
    Path("sweep/1/report.json").unlink()
    Path("sweep/1/checkpoints/old.ckpt").write_text("of the attempt before", encoding="utf-8")
    Path("sweep/1/notes.txt").write_text("mine", encoding="utf-8")
    said = sweep(command, HALF)
    assert (said.status, said.err) == (0, "")
    assert "sweep/0: finished already" in said.out
    assert "sweep/1: done again, it did not finish" in said.out
    assert "sweep: 2 runs, 1 finished before" in said.out
    assert written(0) == first
    left = {path.name for path in Path("sweep/1").iterdir()}
    assert left >= {"report.json", "notes.txt"}
    assert not Path("sweep/1/checkpoints/old.ckpt").exists()


@pytest.mark.slow
def test_runs_of_another_config_are_done_again(command: Command) -> None:
    sweep(command, HALF)
    said = sweep(command, MOST)
    assert "sweep/0: done again, its config had another pruner.schedule.final_sparsity" in said.out
    assert json.loads(Path("sweep/0/report.json").read_text(encoding="utf-8"))["final_sparsity"] == 0.8


@pytest.mark.slow
def test_a_run_that_was_broken_off_is_done_again(command: Command) -> None:
    stop = ("+callbacks.stop._target_=tests.cli.test_train.CtrlC", "+callbacks.stop.after=8")
    said = sweep(command, HALF, *stop)
    assert said.status == 130
    assert not Path("sweep/1").exists()
    assert "sweep: 1 run, stopped before the end" in said.out
    assert "run the same command with hydra.sweep.dir=sweep" in said.out
    assert "sweep/0: done again, it was interrupted" in sweep(command, HALF).out


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_does_not_end_it(command: Command) -> None:
    said = sweep(command, "pruner.schedule.final_sparsity=0.5,2,0.8", "seed=0,x")
    assert said.status == 1
    *lines, last = said.err.split("\n")
    assert last == ""
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [f"sweep/{job}" for job in (1, 2, 3, 5)]
    assert "final_sparsity=2 must be a share" in lines[1]
    assert "sweep: 6 runs, 4 failed" in said.out
    assert [Path(f"sweep/{job}").exists() for job in range(6)] == [True, False, False, False, True, False]


@pytest.mark.slow
def test_a_mistake_in_the_users_code_keeps_its_traceback(command: Command) -> None:
    callbacks = "+callbacks.own._target_=tests.cli.test_train.Broken,pytorch_lightning.Callback"
    said = sweep(command, callbacks)
    assert said.status == 1
    assert "Traceback" in said.err
    assert said.err.endswith("lightning-prune: sweep/0: ValueError: mine\n")
    assert Path("sweep/1/report.json").is_file()


@pytest.mark.slow
def test_two_runs_in_one_folder_are_an_error(command: Command) -> None:
    said = sweep(command, HALF, "hydra.sweep.subdir=same")
    assert said.status == 1
    assert "lightning-prune: sweep/same: two runs of this sweep go to that folder" in said.err
    assert json.loads(Path("sweep/same/report.json").read_text(encoding="utf-8"))["final_sparsity"] == 0.5
