"""Pruning for PyTorch Lightning: step-scheduled, config-driven, exact.

`PruningCallback` needs pytorch-lightning; `Pruner` and everything below it needs torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_prune.pruner import Pruner
from lightning_prune.report import Report

if TYPE_CHECKING:
    from lightning_prune.callback import PruningCallback

__all__ = ["Pruner", "PruningCallback", "Report"]


def __getattr__(name: str) -> Any:
    if name == "PruningCallback":  # imported on first use, so that the core works without Lightning
        try:
            from lightning_prune.callback import PruningCallback
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"PruningCallback needs {error.name}: pip install 'lightning-prune[lightning]'", name=error.name
            ) from error

        return PruningCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
