"""`train -m` with launchers that run elsewhere: a run that fails is named, the others go on, and it counts."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from joblib.externals.loky import get_reusable_executor
from pytorch_lightning import Callback

from .conftest import SHORT, Command, Said

pytestmark = pytest.mark.slow  # many processes or whole trainings

JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
THREE = "pruner.schedule.final_sparsity=0.5,2,0.8"


class Dies(Callback):
    """Takes the whole process along, as the system does when memory runs out."""

    def on_train_start(self, *_: Any, **__: Any) -> None:
        os._exit(9)


class Wrong(Callback):
    def on_train_start(self, *_: Any, **__: Any) -> None:
        raise KeyError("mine")


class CtrlC(Callback):
    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def own_processes() -> Generator[None, None, None]:
    """Joblib keeps its processes for the next sweep, which stay in the folder of the first."""
    yield
    get_reusable_executor().shutdown(wait=True)


def sweep(command: Command, *overrides: str) -> Said:
    return command("train", "-m", "-cn", "digits_mlp", "hydra.sweep.dir=sweep", *SHORT, *overrides)


def check_three(said: Said) -> None:
    """Of a sweep over THREE: the second failed, and all is said."""
    assert said.status == 1
    assert "sweep: 3 runs, 1 failed" in said.out
    assert "good: sweep/0, sweep/2" in said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("lightning-prune: ")]
    assert line.startswith("lightning-prune: sweep/1: pruner.schedule: final_sparsity=2 must be a share")
    assert [Path(f"sweep/{job}").exists() for job in range(3)] == [True, False, True]
    for job, sparsity in ((0, 0.5), (2, 0.8)):
        assert json.loads(Path(f"sweep/{job}/report.json").read_text(encoding="utf-8"))["sparsity"] == pytest.approx(
            sparsity, abs=1e-4
        )


def test_joblib_names_what_failed_and_goes_on_later(command: Command) -> None:
    check_three(sweep(command, *JOBLIB, THREE))
    said = sweep(command, *JOBLIB, "pruner.schedule.final_sparsity=0.5,0.6,0.8")
    assert (said.status, said.err) == (0, "")
    assert "sweep: 3 runs, 2 finished before" in said.out


@pytest.mark.slow
def test_submitits_local_executor_names_what_failed(command: Command) -> None:
    check_three(sweep(command, "hydra/launcher=submitit_local", THREE))


@pytest.mark.slow
def test_ray_names_what_failed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    init = {"num_cpus": 2, "include_dashboard": "false", "log_to_driver": "false", "logging_level": "error"}
    quiet = [f"+hydra.launcher.ray.init.{key}={value}" for key, value in init.items()]
    try:
        check_three(sweep(command, "hydra/launcher=ray", *quiet, THREE))
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_process_that_dies_is_named_and_the_others_are_done(command: Command) -> None:
    dies = f"+callbacks.own._target_=pytorch_lightning.Callback,{__name__}.Dies"
    said = sweep(command, *JOBLIB, dies, "seed=0,1")
    assert said.status == 1
    lines = [line.partition(": ")[2] for line in said.err.splitlines() if line.startswith("lightning-prune: ")]
    assert [line.partition(":")[0] for line in lines] == ["sweep/2", "sweep/3"]
    assert all("no result from it, since a process was lost" in line for line in lines)
    assert "sweep: 4 runs" in said.out
    assert all(Path(f"sweep/{job}/report.json").is_file() for job in (0, 1))


def test_a_traceback_and_an_interruption_come_back_from_other_processes(command: Command) -> None:
    said = sweep(command, *JOBLIB, f"+callbacks.own._target_={__name__}.Wrong")
    assert said.status == 1
    assert "Traceback" in said.err
    assert "in on_train_start" in said.err
    assert said.err.endswith("lightning-prune: sweep/0: KeyError: 'mine'\n")
    said = sweep(command, *JOBLIB, f"+callbacks.own._target_={__name__}.CtrlC", "seed=1,2")
    assert said.status == 130
    assert "sweep: 2 runs, stopped before the end" in said.out


def test_two_runs_in_one_folder_are_refused_before_they_start(command: Command) -> None:
    said = sweep(command, *JOBLIB, "seed=0,1", "hydra.sweep.subdir=same")
    assert said.status == 1
    assert "lightning-prune: sweep/same: two runs of this sweep go to that folder" in said.err
    assert json.loads(Path("sweep/same/report.json").read_text(encoding="utf-8"))["seed"] == 0


def test_several_devices_are_refused_in_another_process(command: Command) -> None:
    said = sweep(command, *JOBLIB, "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
    assert said.status == 1
    assert "trainer.devices=2: a launcher gives each run of a sweep one process" in said.err


@pytest.mark.parametrize(
    ("option", "extra"),
    [
        ("hydra/launcher=joblib", "joblib"),
        ("hydra/launcher=submitit_slurm", "slurm"),
        ("hydra/sweeper=optuna", "optuna"),
    ],
)
def test_a_launcher_that_is_not_installed_names_its_extra(option: str, extra: str) -> None:
    from hydra.errors import MissingConfigException

    from lightning_prune.cli.errors import explain

    error = MissingConfigException("not there", missing_cfg_file=option.replace("=", "/"), options=["basic"])
    assert explain(error) == f"{option} is not installed: pip install 'lightning-prune[{extra}]'"
