"""A sweep goes past runs that fail, and on where it was stopped."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_prune.cli.errors import UserError, explain, message

_FILES = (
    *("config.yaml", "metrics.csv", "hparams.yaml", "report.json", "report.png"),
    *("model.pt", "model.safetensors", "shrunk.json"),
)
_SHOWN = 3


@dataclass
class Sweep:
    """The runs of one `train -m`, one after the other in this process."""

    _dir: str = ""
    _folders: set[Path] = field(default_factory=set[Path])
    _runs: int = 0
    _finished: int = 0
    _failures: list[str] = field(default_factory=list[str])

    def attempt(self, job: Callable[[], None], folder: Path, sweep_dir: str) -> None:
        """Do one run; what it raises is shown, and kept for `end`."""
        self._dir = sweep_dir
        self._runs += 1
        try:
            job()
        except Exception as error:
            line = explain(error)
            if line is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                traceback.print_exc()
            self._failures.append(f"{from_here(folder)}: {line or f'{type(error).__name__}: {message(error)}'}")
            print(f"failed: {self._failures[-1]}\n")
        finally:
            gc.collect()  # a trainer refers to itself, and would keep the run's data for long

    def due(self, folder: Path, config: str, started_from: Any, goes_on: bool = False) -> bool:
        """Return whether a run has yet to be done, and clear away what an earlier attempt has left of it.

        Args:
            folder: where it goes.
            config: its resolved config as YAML.
            started_from: what it says of the weights that it starts with.
            goes_on: it is gone on from there, so nothing is cleared away.

        Raises:
            UserError: another run of this sweep went there.
        """
        why = _unfinished(folder, config, started_from)
        if why is None:
            self._finished += 1
            print(f"{from_here(folder)}: finished already")
            return False
        if folder in self._folders:
            raise UserError(
                "two runs of this sweep go to that folder: name what tells them apart in hydra.sweep.subdir"
            )
        self._folders.add(folder)
        if why and not goes_on:
            print(f"{from_here(folder)}: done again, {why}")
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return True

    def end(self, stopped: bool = False) -> int:
        """Say what was done, name each failure, and return 1 if there is one."""
        if not self._dir:  # no sweep, or none of its runs began
            return 0
        failed = len(self._failures)
        numbers = {"finished before": self._finished, "failed": failed}
        said = [
            f"{self._runs} run{'' if self._runs == 1 else 's'}",
            *(f"{n} {what}" for what, n in numbers.items() if n),
        ]
        print(f"\n{self._dir}: {', '.join(said)}" + (", stopped before the end" if stopped else ""))
        if failed or stopped:
            print(f"to do what is missing, run the same command with hydra.sweep.dir={self._dir}")
        for line in self._failures:
            print(f"lightning-prune: {line}", file=sys.stderr)
        return int(failed > 0)


def from_here(path: Path) -> Path:
    """Return a path relative to the current folder where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _unfinished(folder: Path, config: str, started_from: Any) -> str | None:
    """Return why the run in a folder does not count: "" if there is none, None if it does count."""
    if not (folder / "config.yaml").exists():
        return ""
    try:
        report = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        return "it did not finish"
    if report.get("interrupted", True):
        return "it was interrupted"
    if report.get("started_from") != started_from:
        return "the weights that it starts with are others now"
    from lightning_prune.cli import saved_config

    before, now = (saved_config.flat(text) for text in ((folder / "config.yaml").read_text(), config))
    differ = [key for key in now | before if now.get(key) != before.get(key)]
    if not differ:
        return None
    more = f" and {len(differ) - _SHOWN} more keys" if len(differ) > _SHOWN else ""
    return f"its config had another {', '.join(differ[:_SHOWN])}{more}"
