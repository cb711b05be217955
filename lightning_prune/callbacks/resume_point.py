"""A place to go on from after a run was killed: one file, always whole, from which a run ends with the same bits."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune import given, saved
from lightning_prune.callbacks import metrics_files, random_states
from lightning_prune.families import Callback

if TYPE_CHECKING:
    import pytorch_lightning as pl

FILE = "last.ckpt"
KEY = "resume_point"
"""Of the file, where this callback's part lies."""
VERSION = 1


class ResumePoint(Callback):
    """Write `last.ckpt` where epochs begin; a run that goes on from it ends with the bits of one that was not cut.

    Why there: what was logged of the epoch before is logged by then, learning rates that follow a metric have made
    their step, and no sum over an epoch is half done. Lightning's own `ModelCheckpoint` saves just before that, and a
    run that goes on from its files has no row of the means of the epoch that ended.

    Beside what any checkpoint holds the file holds the states of the random number generators of torch, numpy and
    Python, of each process, and how much of the `CSVLogger`s' files was there. These are copied beside it, and are put
    back when a run goes on in the same folder: rows that came after the point are logged again.

    A file takes its place in one move, so it is whole whenever the run is killed. It is written with any strategy
    whose checkpoint is one file.

    Args:
        dirpath: the folder of the file.
        share: the most of the run's time that writing may take, in (0, 1]: after a point that took a second to write,
            no other is written for `1 / share` seconds. The first epoch's end always writes one.

    Raises:
        ValueError: `share` is out of range; the message names it.
    """

    def __init__(self, dirpath: str | Path, share: float = 0.05) -> None:
        given.number("share", share, above=0, most=1)
        self.dirpath = Path(dirpath)
        self.share = share
        self._seconds: float | None = None  # that the latest writing took
        self._at = 0.0
        self._writing: dict[str, Any] = {}  # what goes into the file that is being written
        self._read: Mapping[str, Any] = {}  # of the file that the run goes on from, until it does
        self._places: list[Any] = []  # in that file: where the loaders were

    @property
    def path(self) -> Path:
        """The file."""
        return self.dirpath / FILE

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Come before all other callbacks: they have not begun the epoch yet when the file is written."""
        if stage == "fit":
            self._seconds, self._read = None, {}
            trainer.callbacks = [self, *(c for c in trainer.callbacks if c is not self)]  # pyright: ignore

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note what the file holds for this callback. Raises ValueError if that is not what was written."""
        state = checkpoint.get(KEY)
        if state is not None:
            self._read = _checked(state)
            self._places = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the loggers' files back to where they were, if the run goes on in its own folder."""
        if self._read and trainer.is_global_zero and _is_at(trainer.ckpt_path, self.path):
            metrics_files.put_back(trainer.loggers, self.dirpath, self._read["metrics"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file if it is time; in the first epoch after going on, take up what the file says."""
        if self._read:
            self._go_on(trainer)
        elif trainer.current_epoch > 0 and not trainer.fast_dev_run and self._due(trainer):  # pyright: ignore
            self._write(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the epoch begin: with `max_steps` Lightning takes any file for one from the midst of an epoch."""
        if self._read:
            fit = trainer.fit_loop
            fit._restarting = fit.epoch_loop.restarting = False  # pyright: ignore[reportPrivateUsage]

    def _go_on(self, trainer: pl.Trainer) -> None:
        """Have the epoch's order drawn as Lightning draws that of any later epoch: by a loader that was used up."""
        fit = trainer.fit_loop
        loader, fetcher = fit._combined_loader, fit._data_fetcher  # pyright: ignore[reportPrivateUsage]
        assert loader is not None  # an epoch begins
        assert fetcher is not None
        sized = not math.isinf(trainer.num_training_batches)
        if sized and any(self._places):
            loader._load_state_dicts(self._places)  # pyright: ignore[reportPrivateUsage]
            iter(fetcher)
        random_states.put_back(trainer, self._read["random"])
        if sized:
            iter(fetcher)
        self._read, self._places = {}, []

    def _due(self, trainer: pl.Trainer) -> bool:
        seconds = self._seconds
        due = seconds is None or time.monotonic() - self._at >= seconds / self.share - seconds
        return bool(trainer.strategy.broadcast(due))

    def _write(self, trainer: pl.Trainer) -> None:
        began = time.monotonic()
        random = random_states.of(trainer)
        metrics = metrics_files.keep(trainer.loggers, self.dirpath) if trainer.is_global_zero else []
        self._writing = {"version": VERSION, "random": random, "metrics": metrics}
        new = self.dirpath / f"{FILE}.new"
        try:
            trainer.save_checkpoint(new, weights_only=False)
        finally:
            self._writing = {}
        if trainer.is_global_zero:
            os.replace(new, self.path)
        self._at = time.monotonic()
        self._seconds = self._at - began

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add this callback's part to its own file, and let the file say that the epoch is still to begin."""
        if not self._writing:
            return
        checkpoint[KEY] = self._writing
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts["ready"] = counts["completed"]


def _is_at(path: Any, point: Path) -> bool:
    return path is not None and Path(path).resolve() == point.resolve()


def _checked(state: Any) -> Mapping[str, Any]:
    """Return what a file holds, checked. Raises ValueError that names the field."""
    part = saved.mapping("ResumePoint", state)
    version = saved.integer("ResumePoint: version", saved.at("ResumePoint", part, "version"))
    if version != VERSION:
        raise ValueError(f"ResumePoint: version {version} is not known here, only {VERSION}: update lightning-prune")
    random = saved.at("ResumePoint", part, "random")
    metrics = saved.at("ResumePoint", part, "metrics")
    return {"random": random_states.checked(random), "metrics": metrics_files.checked(metrics)}
