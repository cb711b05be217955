"""A run's config with other sparsities by layer, as a recipe of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.cli.errors import UserError

_FILE = "plan.yaml"
_WEIGHTS = "lightning_prune.budget.weights.Weights"
_TOO = "name a recipe that prunes along a schedule: lightning-prune sensitivity CHECKPOINT -cn RECIPE"


@dataclass(frozen=True)
class Template:
    """A run's config that is to get sparsities by layer.

    Attributes:
        config: all of it, references as they are.
        weights: what the new run starts with.
    """

    config: Any
    weights: Path

    @classmethod
    def read(cls, text: str, weights: Path) -> Template:
        """Return the config. Raises UserError if its pruner has no sparsities by layer, or none that can be set."""
        from omegaconf import OmegaConf

        config: Any = OmegaConf.create(text)
        for key, what in (("rounds", "it prunes in rounds"), ("pruning_hparams", "a string stands for its pruner")):
            if config.get(key) is not None:
                raise UserError(f"{key} is set: {what}, which takes no sparsities by layer; {_TOO}")
        plain: Any = OmegaConf.to_container(config, resolve=False)
        prune = plain.get("prune")
        if not isinstance(prune, dict) or prune.get("pruner") != "${pruner}":
            raise UserError(f"prune.pruner is not ${{pruner}}, so the plan would have no effect; {_TOO}")
        if "LearnedMasks" in str(OmegaConf.select(config, "pruner._target_")):
            raise UserError(f"its masks are learned, and take no sparsities by layer; {_TOO}")
        if "DynamicGates" in str(OmegaConf.select(config, "pruner._target_")):
            raise UserError(f"its gates leave out channels of each example, and take no sparsities by layer; {_TOO}")
        schedule = OmegaConf.select(config, "pruner.schedule")
        if schedule is None or "final_sparsity" not in schedule:
            raise UserError(f"pruner.schedule has no final_sparsity that could be set; {_TOO}")
        return cls(config, weights)

    @property
    def sparsity(self) -> float:
        """The final sparsity of the run's own schedule, 0 for a dense run. Raises UserError if it counts no weights."""
        budget = (self.config.pruner.get("budget") or {}).get("_target_", _WEIGHTS)
        if budget != _WEIGHTS:
            raise UserError(f"the run's own sparsity is a share of {budget}: give that of the weights by --sparsity")
        return float(self.config.pruner.schedule.final_sparsity)

    def save(self, folder: Path, shares: Mapping[str, float], sparsity: float) -> Path:
        """Write the config with these shares of the layers, which come to a sparsity together, and return the file."""
        from omegaconf import OmegaConf, open_dict

        config = OmegaConf.create(OmegaConf.to_container(self.config, resolve=False))
        with open_dict(config):
            config.pruner.scope = {"_target_": "lightning_prune.scope.by_layer.ByLayer", "sparsity": dict(shares)}
            config.pruner.schedule.final_sparsity = sparsity
            if config.pruner.get("budget") is not None:
                config.pruner.budget = {"_target_": _WEIGHTS}
            if config.pruner.get("targets") is not None:
                config.pruner.targets.sparsity = {}
            config.weights, config.ckpt_path = str(self.weights), None
        file = folder / _FILE
        said = f"# Sparsities by layer that lightning-prune sensitivity has found for {self.weights.name}.\n"
        file.write_text(said + OmegaConf.to_yaml(config), encoding="utf-8")
        return file


def command(plan: Path) -> str:
    """Return the command that trains by a plan."""
    return shlex.join(["lightning-prune", "train", "-cn", plan.stem, "--config-dir", str(plan.parent)])
