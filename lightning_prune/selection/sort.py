"""The older system's later rule: a threshold from sorting, smoothed over time, ties kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_prune import given
from lightning_prune.ranking import Ranked, above, kth_smallest_values
from lightning_prune.selection.protocol import Units, check_finite, common, shards_of


@dataclass(frozen=True)
class Sort:
    """Keep what is at or above a smoothed threshold, the k-th largest score with k = round_half_even(N (1 - s)).

    threshold = (1 - decay) * k-th largest + decay * threshold before; mask = score >= threshold. With ties, or with a
    decay above 0, the sparsity differs from the one asked for. Source: TensorFlow `model_pruning`, later releases.

    Args:
        threshold_decay: how much of the threshold before is kept, in [0, 1).
    """

    threshold_decay: float = 0.0

    exact: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        given.number("threshold_decay", self.threshold_decay, least=0, below=1)

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return which units to keep, and the smoothed threshold."""
        return self.of_each([pool], [drop], [sparsity])[0]

    def of_each(
        self, pools: Sequence[Sequence[Units]], drops: Sequence[int], sparsities: Sequence[float]
    ) -> list[tuple[list[Tensor], float]]:
        """Return the same for each of several pools; a device is waited for as often as for one."""
        check_finite([units for pool in pools for units in pool])
        sizes = [sum(units.size for units in pool) for pool in pools]
        kept = [round(size * (1.0 - sparsity)) for size, sparsity in zip(sizes, sparsities, strict=True)]
        ranked = [
            Ranked(*common(pool), min(size, size - keep + 1), shards_of(pool))
            for pool, size, keep in zip(pools, sizes, kept, strict=True)
        ]
        found: list[tuple[list[Tensor], float]] = []
        for pool, keep, of, value in zip(pools, kept, ranked, kth_smallest_values(ranked), strict=True):
            raw = value if keep else math.nextafter(value, math.inf)  # just above the largest
            threshold = (1.0 - self.threshold_decay) * raw + self.threshold_decay * pool[0].threshold
            masks = above(of.values, of.absolute, threshold, equal=True)
            masks = [m if u.alive is None else m.logical_and_(u.alive) for m, u in zip(masks, pool, strict=True)]
            found.append((masks, threshold))
        return found
