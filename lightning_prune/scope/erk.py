"""Each layer keeps a share by its shape, so that large layers give more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_prune.scope.protocol import Layer, Pool


@dataclass(frozen=True)
class ERK:
    """Keep in each layer a share in proportion to the sum of its dimensions over their product (Erdos-Renyi-Kernel).

    The share is 1 at most; the factor is such that round(s N) of all N weights go, to one weight. Each layer keeps one
    weight at least where no fewer are to stay than there are layers. In a stack of experts the dimensions are those of
    one expert, so that it keeps as much as its experts would as layers of their own; a weight of three or more
    dimensions must therefore be of a known layout. Source: Mocanu et al. 2018 (arXiv 1707.04780); for kernels Evci et
    al. 2020 (arXiv 1911.11134).
    """

    needs_layout: ClassVar[bool] = True

    def __call__(self, layers: Sequence[Layer], sparsity: float) -> list[Pool]:
        """Return a pool for each layer; their drops add up to round(s N)."""
        total = sum(layer.size for layer in layers)
        drop = round(sparsity * total)
        kept = _kept(layers, total - drop)
        drops = _in_whole_weights(layers, [layer.size - keep for layer, keep in zip(layers, kept, strict=True)], drop)
        return [Pool((layer.name,), count, count / layer.size) for layer, count in zip(layers, drops, strict=True)]


def _kept(layers: Sequence[Layer], keep: int) -> list[float]:
    """Return how many weights each layer keeps, in fractions of a weight, `keep` in all."""
    raw = [layer.size * sum(layer.shape) / math.prod(layer.shape) for layer in layers]
    dense: set[int] = set()
    while len(dense) < len(layers):
        left = keep - sum(layers[i].size for i in dense)
        factor = left / sum(r for i, r in enumerate(raw) if i not in dense)
        full = {i for i in range(len(layers)) if i not in dense and factor * raw[i] > layers[i].size}
        if not full:
            return [float(layers[i].size) if i in dense else factor * raw[i] for i in range(len(layers))]
        dense |= full
    return [float(layer.size) for layer in layers]


def _in_whole_weights(layers: Sequence[Layer], ideal: list[float], drop: int) -> list[int]:
    """Return whole counts near `ideal` that add up to `drop`, none below what is pruned for good."""
    least = 1 if sum(layer.size for layer in layers) - drop >= len(layers) else 0
    most = [max(layer.pruned, layer.size - least) for layer in layers]
    floors = [max(layer.pruned, math.floor(x + 1e-9)) for layer, x in zip(layers, ideal, strict=True)]
    counts = [min(count, top) for count, top in zip(floors, most, strict=True)]
    missing = drop - sum(counts)
    by_remainder = sorted(range(len(layers)), key=lambda i: counts[i] - ideal[i])
    while missing:
        order = by_remainder if missing > 0 else by_remainder[::-1]
        above = [top - c for top, c in zip(most, counts, strict=True)]
        room = above if missing > 0 else [c - layer.pruned for layer, c in zip(layers, counts, strict=True)]
        movable = [i for i in order if room[i]][: abs(missing)]
        if not movable:  # more is pruned for good than is asked for
            break
        for i in movable:
            step = min(room[i], abs(missing) // len(movable))
            counts[i] += step if missing > 0 else -step
        missing = drop - sum(counts)
    return counts
