"""The older system's later rule: a threshold from sorting, smoothed over time, ties kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_prune.ranking import above, extremes, kth_smallest_value
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
        if not 0.0 <= self.threshold_decay < 1.0:
            raise ValueError(f"threshold_decay={self.threshold_decay} must lie in [0, 1)")

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return which units to keep, and the smoothed threshold."""
        check_finite(pool)
        values, absolute = common(pool)
        total, shards = sum(units.size for units in pool), shards_of(pool)
        keep = round(total * (1.0 - sparsity))
        if keep:
            raw = kth_smallest_value(values, absolute, total - keep + 1, shards)
        else:  # just above the largest
            raw = math.nextafter(max(high for _, high in extremes(values, absolute, shards)), math.inf)
        threshold = (1.0 - self.threshold_decay) * raw + self.threshold_decay * pool[0].threshold
        masks = above(values, absolute, threshold, equal=True)
        return [m if u.alive is None else m.logical_and_(u.alive) for m, u in zip(masks, pool, strict=True)], threshold
