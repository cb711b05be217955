"""`train ... resume=true`: a run goes on in its own folder, from the last point that it left there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_prune.cli import saved_config
from lightning_prune.cli.arguments import in_quotes
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.sweep import from_here

FOLDER, FILE = "checkpoints", "last.ckpt"
_MAY_DIFFER = {"trainer.enable_progress_bar", "trainer.enable_model_summary"}
"""Keys without an effect on what comes out."""


@dataclass(frozen=True)
class Left:
    """What a run has left in its folder.

    Attributes:
        checkpoint: to go on from; None where there is none yet.
        finished: whether there is nothing left to do.
        said: how it goes on, in words.
    """

    checkpoint: Path | None
    finished: bool
    said: str


def asked(argv: Sequence[str]) -> list[str]:
    """Return a command line with `--resume`, and `RUN --resume`, in the words of Hydra.

    Raises:
        UserError: RUN is no run's folder, or a recipe is named beside it.
    """
    if "--resume" not in argv:
        return list(argv)
    rest = [word for word in argv if word != "--resume"]
    options = {word for word in rest if word.startswith("-")}
    if not rest or rest[0].startswith("-") or "=" in rest[0]:
        return [*rest, "++resume=true"]
    run = Path(rest[0]).absolute()
    if options:
        raise UserError(f"{rest[0]} --resume takes the run's own config: drop {', '.join(sorted(options))}")
    if not (run / "config.yaml").is_file():
        what = "no config.yaml in it" if run.is_dir() else "no such folder"
        raise UserError(f"{rest[0]} --resume: there is {what}; name the folder of a run")
    return ["-cd", str(run), "-cn", "config", f"hydra.run.dir={in_quotes(run)}", "++resume=true", *rest[1:]]


def look(folder: Path, config: str) -> Left:
    """Return what a run of this config has left in a folder.

    Args:
        folder: the run's.
        config: its config as YAML, as `saved_config.to_yaml` makes it.

    Raises:
        UserError: the folder holds a run with another config.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        return Left(None, False, f"{from_here(folder)}: there is no run yet, so it starts from the beginning")
    differ = saved_config.differing(file.read_text(encoding="utf-8"), config, _MAY_DIFFER)
    if differ:
        key, (there, here) = next(iter(differ.items()))
        raise UserError(
            f"{folder} holds a run with another {saved_config.named(differ)} ({key}={there} there, {here} here): "
            f"resume it with the config that it has, 'train {from_here(folder)} --resume', or "
            "start another run from its checkpoint with ckpt_path=FILE and another hydra.run.dir"
        )
    if is_finished(folder):
        return Left(None, True, f"{from_here(folder)}: finished already, nothing is left to do")
    point = folder / FOLDER / FILE
    if point.is_file():
        return Left(point, False, f"{from_here(folder)}: goes on from {from_here(point)}")
    said = f"{from_here(folder)}: there is no {FOLDER}/{FILE} yet, so the run starts from the beginning"
    return Left(None, False, said)


def tidy(folder: Path, checkpoint: Path | None) -> None:
    """Take away what a run saved after the point that it goes on from, and will save again.

    Args:
        folder: the run's.
        checkpoint: the point; None for the beginning.
    """
    known = _known(checkpoint) if checkpoint is not None else set[str]()
    since = os.stat(checkpoint).st_mtime_ns if checkpoint is not None else 0
    for file in (folder / "report.json", folder / FOLDER / f"{FILE}.new"):
        file.unlink(missing_ok=True)
    for file in (folder / FOLDER).glob("*.ckpt"):
        if file != checkpoint and str(file.resolve()) not in known and os.stat(file).st_mtime_ns >= since:
            file.unlink()


def _known(checkpoint: Path) -> set[str]:
    """Return the files that the callbacks of a checkpoint know of."""
    from lightning_prune import saved

    states = saved.mapping(str(checkpoint), saved.load(checkpoint)).get("callbacks", {})
    known: set[str] = set()
    for state in states.values():
        if isinstance(state, dict):
            paths = [*(state.get("best_k_models") or {}), state.get("best_model_path"), state.get("last_model_path")]
            known |= {str(Path(path).resolve()) for path in paths if path}
    return known


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end."""
    try:
        return json.loads((folder / "report.json").read_text(encoding="utf-8")).get("interrupted") is False
    except (OSError, ValueError, AttributeError):
        return False
