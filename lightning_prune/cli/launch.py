"""A sweep's runs on their way to any launcher of Hydra's, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import basic_launcher
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_prune.cli import compose, objectives, together
from lightning_prune.cli.errors import UserError, message, one_line
from lightning_prune.cli.outcome import Outcome
from lightning_prune.cli.sweep import Sweep


@dataclass(frozen=True)
class _Run:
    overrides: Sequence[str]
    place: int
    number: int
    folder: Path


class _Failed(JobReturn):
    """For a sweeper that optimizes: a run without values."""

    def __init__(self, line: str) -> None:
        super().__init__(status=JobStatus.FAILED)
        self.line = line

    @property
    def return_value(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise UserError(self.line)


class Watched(Launcher):
    """Hands runs to a launcher, past those that cannot be started, and keeps for the sweep what became of each."""

    def __init__(self, inner: Launcher, sweep: Sweep) -> None:
        self._inner = inner
        self._sweep = sweep
        self._config: DictConfig = vars(inner)["config"]
        self._context: HydraContext = vars(inner)["hydra_context"]
        self._sweep.directions = objectives.directions(self._config)
        self._folders: dict[Path, Sequence[str]] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing is left to do: the launcher is set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Have the runs done; one return for each."""
        setup_globals()
        self._sweep.begin(str(self._config.hydra.sweep.dir))
        composed = together.fitting(self._config, self._context.config_loader, job_overrides)
        runs = self._startable(job_overrides, composed, initial_job_idx)
        returned: dict[int, JobReturn] = {}
        for run, outcome in zip(runs, self._done(runs, initial_job_idx) if runs else (), strict=True):
            self._sweep.add(outcome)
            returned[run.place] = self._return(outcome)
        if any(outcome.state == "interrupted" for outcome in self._sweep.outcomes):
            raise SystemExit(130)
        return [returned.get(place) or self._return(None) for place in range(len(job_overrides))]

    def _startable(
        self, job_overrides: Sequence[Sequence[str]], composed: Sequence[DictConfig | None], first: int
    ) -> list[_Run]:
        """Return the runs that have a folder of their own, numbered as the launcher will number them."""
        runs: list[_Run] = []
        for place, config in enumerate(composed):
            if config is None:
                continue
            overrides, number = job_overrides[place], first + len(runs)
            folder = _folder(config, number)
            if self._folders.setdefault(folder, overrides) != overrides:
                self._sweep.refuse(
                    folder, "two runs of this sweep go to that folder: name what tells them apart in hydra.sweep.subdir"
                )
            else:
                runs.append(_Run(overrides, place, number, folder))
        return runs

    def _done(self, runs: Sequence[_Run], first: int) -> list[Outcome]:
        start = time.time()
        try:
            return [_outcome(r, run) for r, run in zip(self._launched(runs, first), runs, strict=True)]
        except Exception as error:  # a process died: what a run raises comes back as its outcome
            if isinstance(self._inner, basic_launcher.BasicLauncher):  # by the module: Hydra runs it anew
                raise
            if len(runs) > 1 and isinstance(error, BrokenProcessPool):
                print("a process of the sweep died, and the others with it: what is missing is done one by one")
                return [outcome for run in runs for outcome in self._done([run], run.number)]
            return [_left(run, start, error, self._config) for run in runs]

    def _launched(self, runs: Sequence[_Run], first: int) -> Sequence[JobReturn]:
        return self._inner.launch([list(run.overrides) for run in runs], initial_job_idx=first)

    def _return(self, outcome: Outcome | None) -> JobReturn:
        """Return what the sweeper gets: one that only counts runs goes on past failures, one that optimizes is told."""
        if not self._sweep.directions:
            return JobReturn(status=JobStatus.COMPLETED)
        if outcome is None or not outcome.values:
            return _Failed(outcome.line if outcome else "it was not started")
        found = JobReturn(status=JobStatus.COMPLETED)
        found.return_value = outcome.values if len(self._sweep.directions) > 1 else next(iter(outcome.values))
        return found


def _folder(config: DictConfig, number: int) -> Path:
    """Return where Hydra will put a run."""
    with open_dict(config):
        config.hydra.job.num, config.hydra.job.id = number, str(number)
    with compose.known(config):
        return (Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)).absolute()


def _outcome(returned: JobReturn, run: _Run) -> Outcome:
    value: Any = vars(returned)["_return_value"]
    if isinstance(value, Outcome):
        return value
    what = one_line(f"{type(value).__name__}: {message(value)}") if isinstance(value, Exception) else "no result"
    return Outcome(run.number, str(run.folder), "failed", what)


def _left(run: _Run, start: float, error: Exception, config: DictConfig) -> Outcome:
    """Return what is known of a run whose launcher has lost a process: what it left in its folder since the start."""
    report = run.folder / "report.json"
    if report.is_file() and report.stat().st_mtime >= start:
        try:
            worth = objectives.values(OmegaConf.select(config, "objectives") or (), run.folder)
            return Outcome(run.number, str(run.folder), "finished", values=worth)
        except (UserError, ValueError):
            pass
    lost = one_line(f"{type(error).__name__}: {error}")
    return Outcome(run.number, str(run.folder), "failed", f"no result from it, since a process was lost: {lost[:300]}")
