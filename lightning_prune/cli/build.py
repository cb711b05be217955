"""From a config to the objects it names."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.loggers import Logger

from lightning_prune import hparams
from lightning_prune.callback import PruningCallback
from lightning_prune.cli.check import check
from lightning_prune.cli.errors import UserError, message


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    task: pl.LightningModule
    data: pl.LightningDataModule
    prune: PruningCallback


def parts(config: DictConfig) -> Parts:
    """Return task, data and pruning of a config, seeded. Raises UserError that names the key at fault."""
    check(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    found = Parts(_make(config, "task"), _make(config, "data"), _pruning(config))
    kinds = (pl.LightningModule, pl.LightningDataModule, PruningCallback)
    for key, made, kind in zip(("task", "data", "prune"), (found.task, found.data, found.prune), kinds, strict=True):
        if not isinstance(made, kind):
            raise UserError(f"{key} is a {type(made).__name__}; it must be a {kind.__name__} of pytorch_lightning")
    return found


def trainer(config: DictConfig, prune: PruningCallback) -> pl.Trainer:
    """Return the trainer with its callbacks and loggers. Raises UserError that names the key at fault."""
    callbacks: list[Callback] = [prune, *_each(config, "callbacks")]
    loggers: list[Logger] = _each(config, "logger")
    chosen: dict[str, Any] = {"callbacks": callbacks, "logger": loggers or False}
    if "enable_checkpointing" not in (config.trainer or {}):
        chosen["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    if (config.trainer or {}).get("enable_progress_bar", False) is None:  # in a log file each step would be a line
        chosen["enable_progress_bar"] = sys.stdout.isatty()
    return _make(config, "trainer", **chosen)


def plain_trainer(config: DictConfig, *callbacks: Callback) -> pl.Trainer:
    """Return a trainer that leaves no trace: these callbacks alone, no loggers, no checkpoints, no progress bar."""
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return _make(config, "trainer", callbacks=list(callbacks), **quiet)


def checkpoint(config: DictConfig) -> str | None:
    """Return the checkpoint to resume from, if any. Raises UserError if it is not there."""
    path = config.ckpt_path
    if path is not None and not Path(path).is_file():
        raise UserError(f"ckpt_path={path}: there is no such file")
    return path


def _pruning(config: DictConfig) -> PruningCallback:
    if config.pruning_hparams is None:
        return _make(config, "prune")
    try:
        pruner = hparams.parse(str(config.pruning_hparams))
    except ValueError as error:
        raise UserError(f"pruning_hparams: {message(error)}") from error
    with open_dict(config):
        config.pruner = None
    return _make(config, "prune", pruner=pruner)


def _each(config: DictConfig, group: str) -> list[Any]:
    """Return the objects of a named dict; entries that are null are left out."""
    node = config[group]
    if node is None:
        return []
    if not isinstance(node, DictConfig):
        raise UserError(f"{group}={node} must be a dict of names, each with a _target_")
    return [_make(config, f"{group}.{name}", node=node[name]) for name in node if node[name] is not None]


def _make(config: DictConfig, key: str, node: Any = None, **objects: Any) -> Any:
    """Return what the node's `_target_` makes of its keys and of these objects."""
    node = config[key] if node is None else node
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key} has no _target_: name the class to build")
    call = instantiate(node, _convert_="all", _partial_=True)
    try:
        return call(**objects)
    except Exception as error:
        raise UserError(f"{key}: {message(error)}") from error
