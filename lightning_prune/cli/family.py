"""Which of Lightning's two packages a run uses: that of the user's own classes, or else the one that is installed."""

from __future__ import annotations

import importlib
from contextlib import suppress
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_prune import families
from lightning_prune.cli.errors import UserError

_PREFIXES = ("pytorch_lightning.", "lightning.pytorch.", "lightning.")


def begin(config: DictConfig) -> None:
    """Import the user's modules of task and data, if these are not ours, so that their package is the default one.

    Call it before anything else is imported that needs Lightning. What cannot be imported is left for later to say.
    """
    for key in ("task", "data"):
        with suppress(Exception):
            target = str(OmegaConf.select(config, f"{key}._target_"))
            if not target.startswith("lightning_prune."):
                importlib.import_module(target.rpartition(".")[0])
    families.default()


def named(node: Any, family: ModuleType) -> Any:
    """Return plain nested values in which every class of Lightning's own is named as a class of that family."""
    if isinstance(node, dict):
        return {key: (_target if key == "_target_" else named)(value, family) for key, value in node.items()}
    return [named(value, family) for value in node] if isinstance(node, list) else node


def _target(target: Any, family: ModuleType) -> Any:
    if isinstance(target, str) and not target.startswith("lightning.fabric."):
        for prefix in _PREFIXES:
            if target.startswith(prefix):
                return f"{family.__name__}.{target.removeprefix(prefix)}"
    return target


def check(key: str, made: Any, kind: str, task: Any) -> None:
    """Raise UserError unless something is of the package that the task is of: a Trainer takes no other.

    Args:
        key: its place in the config.
        made: it.
        kind: the class of Lightning's that it must be of, such as `LightningDataModule`.
        task: the run's.
    """
    family = families.of(task)
    if isinstance(made, families.part(family, kind)):
        return
    name = kind.rpartition(".")[2]
    if isinstance(made, families.every(kind)):
        raise UserError(
            f"{key} is a {name} of {families.of(made).__name__}, and the task of {family.__name__}: "
            "import one of the two in both"
        )
    raise UserError(f"{key} is a {type(made).__name__}; it must be a {name}")
