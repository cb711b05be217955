"""A process that trains until the system kills it, at a moment that is hard on files."""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_prune.cli import main


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def at_batch(number: int) -> Callable[[], None]:
    """Within a training step."""
    from lightning_prune.tasks.classifier import Classifier

    return _on_call(Classifier, "training_step", number)


def at_replace(number: int) -> Callable[[], None]:
    """When files are about to take their places: a copy of the metrics and a checkpoint come by turns."""
    return _on_call(os, "replace", number)


def in_checkpoint(number: int) -> Callable[[], None]:
    """With half of a checkpoint on disk."""
    from pytorch_lightning import Trainer

    def half(trainer: Any, file: Any, *_: Any, **__: Any) -> None:
        Path(file).write_bytes(b"half")
        die()

    return _on_call(Trainer, "save_checkpoint", number, half)


def in_header() -> Callable[[], None]:
    """While Lightning writes the metrics file anew, for the test's columns: there is nothing in it then."""
    from lightning_fabric.loggers.csv_logs import _ExperimentWriter

    before = _ExperimentWriter._rewrite_with_new_header

    def emptied(writer: Any, columns: list[str]) -> None:
        if not any("test/" in name for name in columns):
            return before(writer, columns)
        Path(writer.metrics_file_path).write_text("", encoding="utf-8")
        return die()

    def put() -> None:
        setattr(_ExperimentWriter, before.__name__, emptied)

    return put


def at_report() -> Callable[[], None]:
    """When all is done but the report."""
    from lightning_prune.cli import outputs

    return _on_call(outputs, "save_report", 1)


def train(folder: str, argv: list[str], moment: Callable[..., Callable[[], None]], *args: Any) -> None:
    """Run the command in a folder until the moment; for a process of its own."""
    os.chdir(folder)
    os.environ.pop("LIGHTNING_PRUNE_DATA", None)
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' process, which would hold the run after the kill
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    moment(*args)()
    main(["train", *argv])


def _on_call(owner: Any, name: str, number: int, act: Callable[..., Any] = die) -> Callable[[], None]:
    """Return what puts an act in place of the call of that number."""

    def put() -> None:
        before, calls = getattr(owner, name), [0]

        @functools.wraps(before)  # Lightning looks at the names of arguments
        def called(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return (act if calls[0] == number else before)(*args, **kwargs)

        setattr(owner, name, called)

    return put
