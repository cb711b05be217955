"""`train -m` with Optuna: runs are worth what the objectives say, and the front is said and written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_prune.cli import objectives
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.front import front

from .conftest import SHORT, Command, Said

FOUR = ("hydra.sweeper.n_trials=4", "pruner.schedule.final_sparsity=choice(0.5,0.7,0.9)", *SHORT)


def sweep(command: Command, *overrides: str) -> Said:
    return command("train", "-m", "-cn", "digits_mlp_front", "hydra.sweep.dir=sweep", *FOUR, *overrides)


def test_a_front_holds_what_no_other_point_beats() -> None:
    points = [(0.9, 0.5), (0.8, 0.7), (0.7, 0.6), (0.8, 0.7), (0.9, 0.4)]
    assert front(points, [True, True]) == [0, 1, 3]
    assert front(points, [True, False]) == [4]
    assert front([(3.0,), (1.0,), (2.0,)], [False]) == [1]


@pytest.mark.slow
def test_optuna_says_the_front_goes_past_failures_and_on_where_it_was_stopped(command: Command) -> None:
    failing = "pruner.schedule.final_sparsity=choice(0.5,2,0.7)"
    said = sweep(command, failing)
    assert said.status == 1
    results = OmegaConf.to_container(OmegaConf.load("sweep/optimization_results.yaml"))
    assert isinstance(results, dict)
    ours = list(csv.reader(Path("sweep/front.csv").read_text(encoding="utf-8").splitlines()))
    assert ours[0] == ["run", "val/accuracy", "sparsity"]
    assert ours[1:]
    assert sorted([float(a), float(b)] for _, a, b in ours[1:]) == sorted(one["values"] for one in results["solutions"])
    assert "that no other beats, to maximize val/accuracy and maximize sparsity" in said.out
    assert "final_sparsity=2 must be a share" in said.err
    finished = len(list(Path("sweep").glob("*/report.json")))
    assert 0 < finished < 4
    assert f"sweep: 4 runs, {4 - finished} failed" in said.out
    assert f"sweep: 4 runs, {finished} finished before, {4 - finished} failed" in sweep(command, failing).out


@pytest.mark.slow
def test_objectives_that_do_not_fit_are_refused_before_a_run(command: Command) -> None:
    said = sweep(command, "objectives=[val/accuracy]")
    assert said.status == 1
    assert "must name one number for each of hydra.sweeper.direction, which has 2" in said.err
    assert not list(Path("sweep").glob("*/"))
    said = sweep(command, "objectives=null")
    assert "objectives=null must name one number" in said.err


def test_an_objective_that_no_run_has_is_a_failure_that_names_what_there_is(tmp_path: Path) -> None:
    report = '{"sparsity": 0.5, "cost": {"macs": 7}, "interrupted": false, "test": {"test/accuracy": 0.75, "bad": NaN}}'
    (tmp_path / "report.json").write_text(report, encoding="utf-8")
    names = ["cost.macs", "test/accuracy", "sparsity"]
    assert objectives.values(names, tmp_path) == (7.0, 0.75, 0.5)
    with pytest.raises(UserError, match="no number 'test/acuracy'; did you mean test/accuracy"):
        objectives.values(["test/acuracy"], tmp_path)
    with pytest.raises(UserError, match=r"no number 'speed'; it has bad, cost\.macs, sparsity, test/accuracy"):
        objectives.values(["speed"], tmp_path)
    with pytest.raises(UserError, match="bad is nan"):
        objectives.values(["bad"], tmp_path)


@pytest.mark.slow
def test_a_sweeper_that_takes_no_failure_ends_with_the_summary(command: Command) -> None:
    said = sweep(command, "hydra.sweeper.max_failure_rate=0", "pruner.schedule.final_sparsity=2")
    assert said.status == 1
    assert "sweep: 1 run, 1 failed, stopped before the end" in said.out
