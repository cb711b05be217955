"""What a run leaves in its folder."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.learned import LearnedMasks
from lightning_prune.page import Curves as Curves
from lightning_prune.page import read_metrics as read_metrics
from lightning_prune.report import Report
from lightning_prune.shrink import RECIPE

LEARNED = "learned.pt"
_LIGHTNING = {"pytorch_lightning": "pytorch-lightning", "lightning": "lightning"}


def save_model(model: nn.Module, folder: Path) -> Path:
    """Write `model.pt`, a plain state_dict that loads with `weights_only=True`."""
    path = folder / "model.pt"
    torch.save(model.state_dict(), path)
    return path


def save_trained(parts: Any, trainer: Any, folder: Path) -> None:
    """Write `model.pt` on the first rank, and `shrunk.json` where the model was made smaller.

    Nothing is written where a run was interrupted before its first step.
    """
    if trainer.is_global_zero and parts.prune.report is not None:
        save_model(parts.task, folder)
        if parts.prune.shrink_report is not None:
            save_recipe(parts.prune.recipe, folder)


def save_recipe(recipe: Mapping[str, Any], folder: Path) -> Path:
    """Write `shrunk.json`: how a plain model gets the shapes of the one in `model.pt`."""
    path = folder / RECIPE
    path.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    return path


def save_learned(masks: LearnedMasks, folder: Path, title: str) -> None:
    """Write `learned.png`; and `learned.pt`, all that other thresholds can be tried with, where there is one."""
    masks.picture(f"{title}: learned masks").savefig(folder / "learned.png")
    if masks.unstripped:
        torch.save(masks.unstripped, folder / LEARNED)


def save_report(report: Report, folder: Path, **facts: Any) -> Path:
    """Write `report.json`: the report, and these facts about the run."""
    path = folder / "report.json"
    path.write_text(json.dumps(facts | report.to_dict() | {"versions": versions()}, indent=2) + "\n", encoding="utf-8")
    return path


def versions() -> Mapping[str, str]:
    """Return the versions of what decides about the numbers."""
    names = {"lightning_prune": "lightning-prune", "torch": "torch"}
    names |= {key: name for key, name in _LIGHTNING.items() if key in sys.modules}
    found = {"python": platform.python_version()}
    for key, name in names.items():
        try:
            found[key] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[key] = "not installed (run from a checkout)"
    return found
