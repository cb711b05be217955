"""What tells the runs of a logger apart: name, group, tags; and the identity that a resumed run goes on under."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_prune import saved
from lightning_prune.callbacks.metrics_files import write_whole

FILE = "loggers.json"
"""In a run's folder: under which names and ids its loggers have it."""
_NO_MATTER = ("logger", "callbacks", "hydra", "resume", "trainer.enable_", "recipe")
_LONGEST = 120


def filled(config: DictConfig) -> DictConfig:
    """Return the config with what its wandb and MLflow loggers leave open: name, group, tags, job type, id.

    A value of the user's own stays; tags of theirs are added to. A run that is resumed keeps what it had.

    Args:
        config: of a run whose folder Hydra knows; others stay as they are.
    """
    if not HydraConfig.initialized() or not isinstance(config.get("logger"), DictConfig):
        return config
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    known = saved.load_json(folder / FILE) if config.get("resume") and (folder / FILE).is_file() else {}
    sweep = str(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    group = sweep or (str(folder.parent.parent) if config.get("rounds") is not None else None)
    name = run_name(str(config.recipe), list(hydra.overrides.task))
    ours = config.copy()
    with open_dict(ours):
        for key, node in ours.logger.items():
            kind = str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, DictConfig) else ""
            if kind == "WandbLogger":
                values: dict[str, Any] = {"name": name, "group": group, "job_type": "train", "id": secrets.token_hex(4)}
                values |= saved.mapping(f"{FILE}: {key}", known.get(str(key), {}))
                node.tags = [*(node.get("tags") or []), *tags(ours)]
            elif kind == "MLFlowLogger":
                values = {"run_name": name} | saved.mapping(f"{FILE}: {key}", known.get(str(key), {}))
                node.tags = (
                    {"recipe": str(config.recipe)} | ({"group": group} if group else {}) | (node.get("tags") or {})
                )
            else:
                continue
            for field, value in values.items():
                if node.get(field) is None:
                    node[field] = value
    return ours


def remember(folder: Path, loggers: Sequence[Any], names: Sequence[str]) -> None:
    """Write down under which names and ids loggers have a run; MLflow's run begins with it. No file for others.

    Args:
        folder: the run's.
        loggers: of the first rank.
        names: their keys in the config.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, logger in zip(names, loggers, strict=True):
        kind = type(logger).__name__
        if kind == "WandbLogger":
            given = logger._wandb_init
            found[key] = {field: given[field] for field in ("name", "group", "id") if given.get(field)}
        elif kind == "MLFlowLogger":
            found[key] = {"run_id": logger.run_id}
    if found:
        write_whole(folder / FILE, json.dumps(found, indent=1) + "\n")


def hyperparameters(config: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain values, without what runs are logged to."""
    ours = config.copy()
    with open_dict(ours):
        for key in ("logger", "callbacks"):
            ours.pop(key, None)
        if ours.get("prune") is not None:
            ours.prune.pruner = None  # the pruner is there by itself
    plain = OmegaConf.to_container(ours, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def run_name(recipe: str, overrides: Sequence[str]) -> str:
    """Return a recipe's name with what the command line changes: `digits_mlp final_sparsity=0.95 seed=3`."""
    pairs = [word.lstrip("+~").partition("=") for word in overrides if not word.lstrip("+~").startswith(_NO_MATTER)]
    last = [key.rpartition(".")[2].rpartition("/")[2] for key, _, _ in pairs]
    shown = [short if last.count(short) == 1 else key for short, (key, _, _) in zip(last, pairs, strict=True)]
    name = " ".join([recipe, *(f"{key}={value}" for key, (_, _, value) in zip(shown, pairs, strict=True))])
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def tags(config: DictConfig) -> list[str]:
    """Return the recipe and the classes of the pruner's schedule, criterion and pattern."""
    pruner = config.get("pruner")
    nodes = (
        [pruner.get(noun) for noun in ("schedule", "criterion", "pattern")] if isinstance(pruner, DictConfig) else []
    )
    kinds = [str(node.get("_target_", "")).rpartition(".")[2] for node in nodes if isinstance(node, DictConfig)]
    return [str(config.recipe), *(kind for kind in kinds if kind)]
