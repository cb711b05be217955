"""From a config to the objects it names."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_prune import families, hparams, saved
from lightning_prune.callbacks import PruningCallback
from lightning_prune.cli import checkpoints, family
from lightning_prune.cli.check import check
from lightning_prune.cli.errors import UserError, message, near
from lightning_prune.cli.loggers import filled
from lightning_prune.cli.monitored import check_modes
from lightning_prune.dynamic import put_gates
from lightning_prune.dynamic.links import gates_in
from lightning_prune.rounds import PruningRounds
from lightning_prune.shrink import RECIPE, rebuild, recipes_in

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers import Logger


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    task: pl.LightningModule
    data: pl.LightningDataModule
    pruning: PruningCallback | PruningRounds

    @property
    def prune(self) -> PruningCallback:
        """The callback. Raises UserError where there are rounds."""
        if isinstance(self.pruning, PruningRounds):
            raise UserError("the recipe prunes in rounds, which only train and plan know")
        return self.pruning

    @property
    def rounds(self) -> PruningRounds:
        """The rounds, where there are some."""
        assert isinstance(self.pruning, PruningRounds)
        return self.pruning


def parts(config: DictConfig) -> Parts:
    """Return task, data and pruning of a config, seeded. Raises UserError that names the key at fault."""
    model = task(config)
    found = Parts(model, _make(config, "data"), _pruning(config))
    in_rounds = config.get("rounds") is not None
    family.check("data", found.data, "LightningDataModule", model)
    _check_kind("rounds" if in_rounds else "prune", found.pruning, PruningRounds if in_rounds else PruningCallback)
    return found


def task(config: DictConfig) -> pl.LightningModule:
    """Return the task of a config alone, seeded. Raises UserError that names the key at fault."""
    check(config)
    families.default().seed_everything(config.seed, workers=True, verbose=False)
    model = _make(config, "task")
    if not isinstance(model, families.every("LightningModule")):
        raise UserError(f"task is a {type(model).__name__}; it must be a LightningModule")
    return model


def _check_kind(key: str, made: Any, kind: type) -> None:
    if not isinstance(made, kind):
        raise UserError(f"{key} is a {type(made).__name__}; it must be a {kind.__name__}")


def trainer(config: DictConfig, prune: PruningCallback | None, task: pl.LightningModule) -> pl.Trainer:
    """Return the trainer of a task with its callbacks and loggers. Raises UserError that names the key at fault."""
    check_modes(config)
    config = filled(config)
    callbacks: list[Callback] = [*([prune] if prune else []), *_each(config, "callbacks", task, "Callback")]
    loggers: list[Logger] = _each(config, "logger", task)
    chosen: dict[str, Any] = {"callbacks": callbacks, "logger": loggers or False}
    if "enable_checkpointing" not in (config.trainer or {}):
        saving = families.every("callbacks.Checkpoint")
        chosen["enable_checkpointing"] = any(isinstance(callback, saving) for callback in callbacks)
    if (config.trainer or {}).get("enable_progress_bar", False) is None:  # in a log file each step would be a line
        chosen["enable_progress_bar"] = sys.stdout.isatty()
    return _make(config, "trainer", _of(config.trainer, task), **chosen)


def plain_trainer(config: DictConfig, task: pl.LightningModule, *callbacks: Callback) -> pl.Trainer:
    """Return a trainer of a task that leaves no trace: these callbacks, no loggers, no checkpoints, no progress bar."""
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return _make(config, "trainer", _of(config.trainer, task), callbacks=list(callbacks), **quiet)


def checkpoint(config: DictConfig) -> str | None:
    """Return the checkpoint to resume from, if any. Raises UserError if it is not there."""
    path = config.ckpt_path
    if path is not None and not Path(path).is_file():
        raise UserError(f"ckpt_path={path}: there is no such file")
    return path


def load_weights(config: DictConfig, task: pl.LightningModule) -> dict[str, str] | None:
    """Load `weights`, if any, into the task, and return what to say of them. Raises UserError if they do not fit."""
    path = config.get("weights")  # configs of earlier versions do not have it
    if path is None:
        return None
    if config.ckpt_path is not None:
        raise UserError(f"ckpt_path={config.ckpt_path} brings weights of its own: drop weights={path}")
    if not Path(path).is_file():
        raise UserError(f"weights={path}: there is no such file")
    try:
        put(checkpoints.load(Path(path)), Path(path), task)
    except UserError as error:
        raise UserError(f"weights={path}: {error}") from error
    return {"file": str(path), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def put(content: Any, file: Path, task: pl.LightningModule) -> None:
    """Put the weights that a file holds into a task, which gets the shapes of a smaller model if they are of one.

    Args:
        content: what was read from the file.
        file: where it lies, for `recipes_of`.
        task: of the run.

    Raises:
        UserError: they do not fit.
    """
    try:
        state = _state_dict(content, task)
        for recipe in recipes_of(content, file):
            rebuild(task, recipe)
        if gates_in(state):
            put_gates(task, state)
        task.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise UserError(message(error)) from error


def recipes_of(content: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    """Return the recipes of a smaller model: shrunk.json beside a file, or those in it; none of one in full size.

    Args:
        content: what was read from the file.
        file: where it lies. Of a compact file only its own count, wherever that lies.

    Raises:
        ValueError: they are damaged.
    """
    own = recipes_in(content)
    beside = file.parent / RECIPE
    if beside.is_file() and not (own and file.suffix == ".safetensors"):
        return [saved.load_json(beside)]
    return own


def _state_dict(content: Any, task: pl.LightningModule) -> dict[str, Any]:
    """Return the state_dict in what a file holds. Raises UserError, which says what is there, if it is no such one."""
    if not isinstance(content, dict):
        raise UserError(f"it holds a {type(content).__name__}, not the state_dict of a model")
    state = content.get("state_dict", content)
    own = set(task.state_dict())
    if not isinstance(state, dict) or not own & set(state):
        inside = {key: value for key, value in content.items() if isinstance(value, dict)}
        for key, value in inside.items():
            if own <= set(value):
                raise UserError(f"the weights lie under the key {key!r}, and not under state_dict: save them alone")
        names = [name for name, _ in checkpoints.tensors(content)]
        if not names:
            raise UserError("there is no tensor in it")
        alike = near(sorted(own)[0], names, number=1)
        raise UserError(
            f"none of its {len(names)} tensors is one of {type(task).__name__}: it has {_some(names)}, the model "
            f"{_some(sorted(own))}" + (f"; is {alike[0]} under another prefix?" if alike else "")
        )
    return state  # what is missing or too much of a model that is alike, torch says


def _some(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _pruning(config: DictConfig) -> PruningCallback | PruningRounds:
    if config.get("rounds") is not None:
        for key in ("prune", "pruning_hparams"):
            if config.get(key) is not None:
                raise UserError(f"{key} has no effect beside rounds: set {key}=null")
        return _make(config, "rounds")
    if config.get("first") is not None:
        raise UserError("first has an effect only with rounds: set first=null")
    if config.get("prune") is None:
        raise UserError("prune is null and so is rounds: for a dense run, set pruner.schedule.final_sparsity=0")
    if config.pruning_hparams is None:
        return _make(config, "prune")
    try:
        pruner = hparams.parse(str(config.pruning_hparams))
    except ValueError as error:
        raise UserError(f"pruning_hparams: {message(error)}") from error
    with open_dict(config):
        config.pruner = None
    return _make(config, "prune", pruner=pruner)


def _of(node: Any, task: pl.LightningModule) -> Any:
    """Return a node with the classes of Lightning's own in the package that the task is of."""
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    ours = family.named(plain, families.of(task))
    return node if ours == plain else OmegaConf.create(ours)


def _each(config: DictConfig, group: str, task: pl.LightningModule, kind: str | None = None) -> list[Any]:
    """Return the objects of a named dict; entries that are null are left out. They must be of a kind of Lightning's."""
    node = config[group]
    if node is None:
        return []
    if not isinstance(node, DictConfig):
        raise UserError(f"{group}={node} must be a dict of names, each with a _target_")
    keys = {f"{group}.{name}": node[name] for name in node if node[name] is not None}
    made = {key: _make(config, key, node=_of(each, task)) for key, each in keys.items()}
    for key, each in made.items():
        if kind is not None:
            family.check(key, each, kind, task)
    return list(made.values())


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
