"""The entries of prunable weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_prune.budget.protocol import Price


@dataclass(frozen=True)
class Weights:
    """The sparsity is the share of zeros among all prunable weights."""

    def price(self, model: nn.Module, example_inputs: Any, shapes: Mapping[str, tuple[int, ...]]) -> Price | None:
        """Return None: every entry counts as one."""
        return None
