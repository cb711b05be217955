"""All weights of all layers compete with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune import given
from lightning_prune.scope.protocol import Layer, Pool


@dataclass(frozen=True)
class GlobalRanking:
    """Rank the weights of all layers together, so that layers end at different sparsities.

    A layer whose scores are all small, such as one that begins at zero, would lose everything. So each layer keeps the
    best `floor` of its weights, and one at least; the others give more, and round(s N) go as without. A floor that asks
    for more than is to stay in all is lowered, for all layers by one factor down to one weight each; where fewer
    weights are to stay than there are layers, as at a sparsity of 1, there is none.

    Args:
        floor: share of each layer's weights that stays at least, in [0, 1); above 0, one weight at least. 0 or None
            for no floor.

    Raises:
        ValueError: `floor` is out of range.
    """

    floor: float | None = 0.001

    def __post_init__(self) -> None:
        object.__setattr__(self, "floor", given.plain(self.floor))
        if self.floor is not None:
            hint = ", the share of each layer's weights that stays at least; 0 for none"
            given.number("floor", self.floor, least=0, below=1, hint=hint)

    def __call__(self, layers: Sequence[Layer], sparsity: float) -> list[Pool]:
        """Return one pool that drops round(s N) of the N weights of all layers."""
        total = sum(layer.size for layer in layers)
        drop = round(sparsity * total)
        least = _within([self._least(layer) for layer in layers], total - drop) if self.floor else ()
        return [Pool(tuple(layer.name for layer in layers), drop, sparsity, least)]

    def _least(self, layer: Layer) -> int:
        return min(layer.size, max(1, math.ceil((self.floor or 0.0) * layer.size - 1e-9)))


def _within(least: Sequence[int], keep: int) -> tuple[int, ...]:
    """Return floors that add up to `keep` at most, none where that is fewer than one weight each."""
    asked, ones = sum(least), len(least)
    if asked <= keep:
        return tuple(least)
    if ones > keep:
        return ()
    return tuple(1 + (few - 1) * (keep - ones) // (asked - ones) for few in least)
