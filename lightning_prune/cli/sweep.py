"""A sweep goes past runs that fail, and on where it was stopped."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_prune.cli.errors import explain, message
from lightning_prune.cli.outcome import Outcome

_FILES = (
    *("config.yaml", "metrics.csv", "hparams.yaml", "report.json", "report.png", "report.html", "details.json"),
    *("model.pt", "model.safetensors", "shrunk.json"),
)
_GOOD = 12


@dataclass
class Sweep:
    """The runs of one `train -m`: one after the other in this process, or in others, where this goes as a copy."""

    _dir: str = ""
    _process: tuple[str, int] = field(default_factory=lambda: (socket.gethostname(), os.getpid()))
    _before: set[Path] = field(default_factory=set[Path])
    _outcomes: dict[int | str, Outcome] = field(default_factory=dict[int | str, Outcome])

    directions: Mapping[str, str] = field(default_factory=dict[str, str])
    """Objective -> minimize or maximize, where the sweeper optimizes."""

    @property
    def folder(self) -> str:
        """Where the sweep goes; "" before its first run."""
        return self._dir

    @property
    def elsewhere(self) -> bool:
        """Whether this is the copy of another process."""
        return self._process != (socket.gethostname(), os.getpid())

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """What is known of the runs so far."""
        return list(self._outcomes.values())

    def begin(self, sweep_dir: str) -> None:
        """Say where the sweep goes: its first runs are about to start."""
        self._dir = sweep_dir

    def attempt(self, job: Callable[[], tuple[float, ...]], number: int, folder: Path) -> Outcome:
        """Do one run; what it raises is shown, and kept for `end`.

        In another process nothing is raised, since each launcher would make something else of it.
        """
        try:
            values = job()
        except Exception as error:
            outcome = self._failed(error, number, folder)
        except (SystemExit, KeyboardInterrupt):
            self.add(Outcome(number, str(folder), "interrupted"))
            if not self.elsewhere:
                raise
            outcome = self._outcomes[number]
        else:
            outcome = Outcome(
                number, str(folder), "finished before" if folder in self._before else "finished", values=values
            )
        finally:
            gc.collect()  # a trainer refers to itself, and would keep the run's data for long
        self.add(outcome)
        return outcome

    def add(self, outcome: Outcome) -> None:
        """Keep what became of a run, once, and show what its own process could not."""
        if outcome.trace and not self.elsewhere:
            print(outcome.trace, file=sys.stderr)
        self._outcomes[outcome.number] = outcome

    def refuse(self, folder: Path, line: str) -> None:
        """Count a run that cannot be started."""
        outcome = Outcome(-1, str(folder), "failed", line)
        self._outcomes[f"{len(self._outcomes)} refused"] = outcome
        print(f"failed: {_named(outcome)}\n")

    def _failed(self, error: Exception, number: int, folder: Path) -> Outcome:
        line, trace = explain(error), ""
        if line is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            if self.elsewhere:
                trace = traceback.format_exc()
            else:
                traceback.print_exc()
        outcome = Outcome(number, str(folder), "failed", line or f"{type(error).__name__}: {message(error)}", trace)
        print(f"failed: {_named(outcome)}\n")
        return outcome

    def due(self, folder: Path, config: str, started_from: Any, goes_on: bool = False) -> bool:
        """Return whether a run has yet to be done, and clear away what an earlier attempt has left of it.

        Args:
            folder: where it goes.
            config: its resolved config as YAML.
            started_from: what it says of the weights that it starts with.
            goes_on: it is gone on from there, so nothing is cleared away.
        """
        why = _unfinished(folder, config, started_from)
        if why is None:
            self._before.add(folder)
            print(f"{from_here(folder)}: finished already")
            return False
        if why and not goes_on:
            print(f"{from_here(folder)}: done again, {why}")
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return True

    def end(self, stopped: bool = False) -> int:
        """Say what was done and where, name each failure, and return 1 if there is one."""
        if not self._dir:  # no sweep, or none of its runs began
            return 0
        runs = len(self._outcomes)
        by_state = {state: [o for o in self.outcomes if o.state == state] for state in ("finished before", "failed")}
        said = [f"{runs} run{'' if runs == 1 else 's'}", *(f"{len(o)} {state}" for state, o in by_state.items() if o)]
        print(f"\n{self._dir}: {', '.join(said)}" + (", stopped before the end" if stopped else ""))
        good = [str(from_here(Path(o.folder))) for o in self.outcomes if o.state.startswith("finished")]
        if good and len(good) < runs:
            more = f" and {len(good) - _GOOD} more" if len(good) > _GOOD else ""
            print(f"good: {', '.join(good[:_GOOD])}{more}")
        if by_state["failed"] or stopped:
            print(f"to do what is missing, run the same command with hydra.sweep.dir={self._dir}")
        for outcome in by_state["failed"]:
            print(f"lightning-prune: {_named(outcome)}", file=sys.stderr)
        return int(bool(by_state["failed"]))


def _named(outcome: Outcome) -> str:
    return f"{from_here(Path(outcome.folder))}: {outcome.line}"


def from_here(path: Path) -> Path:
    """Return a path relative to the current folder where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _unfinished(folder: Path, config: str, started_from: Any) -> str | None:
    """Return why the run in a folder does not count: "" if there is none, None if it does count."""
    if not (folder / "config.yaml").exists():
        return ""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it did not finish"
    if report.get("interrupted", True):
        return "it was interrupted"
    if report.get("started_from") != started_from:
        return "the weights that it starts with are others now"
    from lightning_prune.cli import saved_config

    differ = saved_config.differing((folder / "config.yaml").read_text(encoding="utf-8"), config)
    return f"its config had another {saved_config.named(differ)}" if differ else None
