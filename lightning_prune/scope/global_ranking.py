"""All weights of all layers compete with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.scope.protocol import Layer, Pool


@dataclass(frozen=True)
class GlobalRanking:
    """Rank the weights of all layers together, so that layers end at different sparsities."""

    def __call__(self, layers: Sequence[Layer], sparsity: float) -> list[Pool]:
        """Return one pool that drops round(s N) of the N weights of all layers."""
        total = sum(layer.size for layer in layers)
        return [Pool(tuple(layer.name for layer in layers), round(sparsity * total), sparsity)]
