"""Every layer ends at the same sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.scope.protocol import Layer, Pool


@dataclass(frozen=True)
class Uniform:
    """Prune every layer to the same sparsity: round(s n) of its n weights."""

    def __call__(self, layers: Sequence[Layer], sparsity: float) -> list[Pool]:
        """Return a pool for each layer."""
        return [Pool((layer.name,), round(sparsity * layer.size), sparsity) for layer in layers]
