"""The older system's documented rule: a threshold from a histogram of the scores, smoothed over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune.ranking import above, chunks_of, extremes, take, where_float64_is
from lightning_prune.selection.protocol import Units, check_finite, common, non_finite, shards_of
from lightning_prune.shards import Shard, kind, total


@dataclass(frozen=True)
class Histogram:
    """Keep what is above a smoothed threshold, read off the cumulated histogram of the scores.

    With M the largest score, bin = clip(floor(nbins * score / M), 0, nbins - 1); raw = (number of bins whose
    cumulated share is below s) / nbins * M; threshold = (1 - decay) * raw + decay * threshold before; mask = score >
    threshold. The sparsity is met to the width of a bin. Scores must not be negative. Source: TensorFlow
    `model_pruning`.

    Args:
        nbins: number of bins, at least 2.
        threshold_decay: how much of the threshold before is kept, in [0, 1).
    """

    nbins: int = 255
    threshold_decay: float = 0.0

    exact: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.nbins, bool) or not isinstance(self.nbins, int) or self.nbins < 2:
            raise ValueError(f"nbins={self.nbins!r} must be an int of at least 2")
        if not 0.0 <= self.threshold_decay < 1.0:
            raise ValueError(f"threshold_decay={self.threshold_decay} must lie in [0, 1)")

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return which units to keep, and the smoothed threshold."""
        values, absolute = common(pool)
        shards = shards_of(pool)
        ends = extremes(values, absolute, shards)
        for units, (low, high) in zip(pool, ends, strict=True):
            if not math.isfinite(high - low):
                check_finite(pool)
                raise non_finite(units.name)
        for units, (low, _) in zip(pool, ends, strict=True):
            if low < 0:
                raise ValueError(f"Histogram needs scores that are not negative; '{units.name}' has some. Use Exact()")
        largest = max(high for _, high in ends)
        raw = self._raw_threshold(values, absolute, largest, sparsity, shards) if largest > 0 else 0.0
        threshold = (1.0 - self.threshold_decay) * raw + self.threshold_decay * pool[0].threshold
        masks = above(values, absolute, threshold, equal=False)
        return [m if u.alive is None else m.logical_and_(u.alive) for m, u in zip(masks, pool, strict=True)], threshold

    def _raw_threshold(
        self, values: list[Tensor], absolute: bool, largest: float, sparsity: float, shards: Sequence[Shard | None]
    ) -> float:
        places = [(v.device, kind(shard)) for v, shard in zip(values, shards, strict=True)]
        tables = {place: torch.zeros(self.nbins, dtype=torch.int64, device=place[0]) for place in places}
        for chunk in chunks_of(values, places):
            scores = where_float64_is(take(values, chunk))
            bins = (scores.abs() if absolute else scores).to(torch.float64, copy=True)
            bins = bins.mul_(self.nbins).div_(largest).floor_().clamp_(0, self.nbins - 1).int()
            table = tables[places[chunk[0].index]]
            table.index_add_(0, bins, table.new_ones(1).expand(bins.numel()))
        counts = total([(groups, table) for (_, groups), table in tables.items()])
        below = (counts.cumsum(0) / counts.sum() < sparsity).sum()
        return int(below) / self.nbins * largest
