"""Pruning for PyTorch Lightning: step-scheduled, config-driven, exact.

`PruningCallback` and `PruningRounds` need Lightning; `Pruner`, `LearnedMasks`, `DynamicGates` and everything below them
torch alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_prune.callbacks import PruningCallback
    from lightning_prune.dynamic import DynamicGates
    from lightning_prune.learned import LearnedMasks
    from lightning_prune.pruning import Pruner
    from lightning_prune.report import Report
    from lightning_prune.rounds import PruningRounds
    from lightning_prune.targets import Targets

    __version__: str

__all__ = ["DynamicGates", "LearnedMasks", "Pruner", "PruningCallback", "PruningRounds", "Report", "Targets"]

_WINGS = {
    "DynamicGates": "dynamic",
    "LearnedMasks": "learned",
    "Pruner": "pruning",
    "PruningCallback": "callbacks",
    "PruningRounds": "rounds",
    "Report": "report",
    "Targets": "targets",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that the core works without Lightning and nothing is paid for twice."""
    if name == "__version__":
        from importlib.metadata import version  # of the installed distribution: it is written in one place alone

        return version("lightning-prune")
    if name not in _WINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(f"{__name__}.{_WINGS[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"{name} needs {error.name}: pip install 'lightning-prune[lightning]'", name=error.name
        ) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
