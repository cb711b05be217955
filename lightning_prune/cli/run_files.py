"""Which run a file of weights is of, and which weights of a run are its newest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.cli import checkpoints
from lightning_prune.cli.errors import UserError

CHECKPOINTS = "checkpoints/*.ckpt"


@dataclass(frozen=True)
class Stamp:
    """A file as it is now: another one, or the same written anew, is another stamp."""

    file: Path
    written: int
    size: int

    @staticmethod
    def of(file: Path) -> Stamp:
        """Return the stamp of a file. Raises OSError if it is not there."""
        found = file.stat()
        return Stamp(file, found.st_mtime_ns, found.st_size)


def run_of(path: Path) -> Path:
    """Return the run's folder that a path is, or lies in: `RUN`, `RUN/model.pt`, `RUN/checkpoints/last.ckpt`.

    Raises:
        UserError: there is nothing at that path, or no run's config.yaml in it, beside it or above it.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    here = path.absolute()
    places = [path] if path.is_dir() else [here.parent, here.parent.parent]
    for folder in places:
        if (folder / "config.yaml").is_file():
            return folder
    if path.is_dir():
        raise UserError(f"{path} is no run's folder: there is no config.yaml in it")
    raise UserError(
        f"{path}: which run is it of? There is no config.yaml beside it or in the folder above: give --run RUN"
    )


def newest(run: Path, finished: bool, live: bool) -> Stamp | None:
    """Return the weights of a run that were written last; of one that is finished, those that it ended with.

    Args:
        run: the run's folder.
        finished: it came to its end.
        live: a process is at it, so that a model.pt is an earlier one's, or not all that the run will leave.
    """
    if finished:
        return Stamp.of(checkpoints.file_of(run))
    stamps = list[Stamp]()
    for file in (*([] if live else [run / "model.pt"]), *run.glob(CHECKPOINTS)):
        try:
            stamps.append(Stamp.of(file))
        except FileNotFoundError:  # it was never there, or another file has just taken its place
            continue
    return max(stamps, key=lambda stamp: stamp.written, default=None)


def step_of(content: Any) -> int | None:
    """Return how many optimizer steps a checkpoint of Lightning's was written after; None for other files."""
    step = content.get("global_step") if isinstance(content, dict) else None
    return step if isinstance(step, int) else None
