"""The older system's documented rule: a threshold from a histogram of the scores, smoothed over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.ranking import above, chunks_of, extremes, take, where_float64_is
from lightning_prune.selection.protocol import Units, check_finite, common, non_finite, shards_of
from lightning_prune.shards import Kind, Shard, kind, total


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
        given.whole("nbins", self.nbins, 2)
        given.number("threshold_decay", self.threshold_decay, least=0, below=1)

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return which units to keep, and the smoothed threshold."""
        return self.of_each([pool], [drop], [sparsity])[0]

    def of_each(
        self, pools: Sequence[Sequence[Units]], drops: Sequence[int], sparsities: Sequence[float]
    ) -> list[tuple[list[Tensor], float]]:
        """Return the same for each of several pools; a device is waited for as often as for one."""
        scored = [_Scored(*common(pool), shards_of(pool)) for pool in pools]
        largest = [max(high for _, high in ends) for ends in _ends(pools, scored)]
        raws = self._raw_thresholds(scored, largest, sparsities)
        found: list[tuple[list[Tensor], float]] = []
        for pool, scores, raw in zip(pools, scored, raws, strict=True):
            threshold = (1.0 - self.threshold_decay) * raw + self.threshold_decay * pool[0].threshold
            masks = above(scores.values, scores.absolute, threshold, equal=False)
            masks = [m if u.alive is None else m.logical_and_(u.alive) for m, u in zip(masks, pool, strict=True)]
            found.append((masks, threshold))
        return found

    def _raw_thresholds(
        self, scored: Sequence[_Scored], largest: Sequence[float], sparsities: Sequence[float]
    ) -> list[float]:
        places = list(dict.fromkeys(place for scores in scored for place in scores.places))
        shape = (len(scored), self.nbins)
        tables = {place: torch.zeros(shape, dtype=torch.int64, device=place[0]) for place in places}
        for n, scores in enumerate(scored):
            for chunk in chunks_of(scores.values, scores.places) if largest[n] > 0 else ():
                values = where_float64_is(take(scores.values, chunk))
                bins = (values.abs() if scores.absolute else values).to(torch.float64, copy=True)
                bins = bins.mul_(self.nbins).div_(largest[n]).floor_().clamp_(0, self.nbins - 1).int()
                table = tables[scores.places[chunk[0].index]][n]
                table.index_add_(0, bins.to(table.device, non_blocking=True), table.new_ones(1).expand(bins.numel()))
        counts = total([(groups, table) for (_, groups), table in tables.items()])
        return [
            int((row.cumsum(0) / row.sum() < sparsity).sum()) / self.nbins * high if high > 0 else 0.0
            for row, sparsity, high in zip(counts, sparsities, largest, strict=True)
        ]


@dataclass(frozen=True)
class _Scored:
    """The scores of a pool: values in one dtype, whether they are ranked by |value|, and what they are pieces of."""

    values: list[Tensor]
    absolute: bool
    shards: list[Shard | None]

    @cached_property
    def places(self) -> list[tuple[torch.device, Kind]]:
        """Where each tensor lies, and the groups over which it adds up with others."""
        return [(v.device, kind(shard)) for v, shard in zip(self.values, self.shards, strict=True)]


def _ends(pools: Sequence[Sequence[Units]], scored: Sequence[_Scored]) -> list[list[tuple[float, float]]]:
    """Return the least and the largest score of each member. Raises ValueError that names one that is not right."""
    found: dict[int, list[tuple[float, float]]] = {}
    for absolute in (True, False):
        those = [n for n, scores in enumerate(scored) if scores.absolute == absolute]
        values = [value for n in those for value in scored[n].values]
        every = iter(extremes(values, absolute, [shard for n in those for shard in scored[n].shards]))
        found |= {n: [next(every) for _ in pools[n]] for n in those}
    each = [(units, end) for n, pool in enumerate(pools) for units, end in zip(pool, found[n], strict=True)]
    for units, (low, high) in each:
        if not math.isfinite(high - low):
            check_finite([units for pool in pools for units in pool])
            raise non_finite(units.name)
    for units, (low, _) in each:
        if low < 0:
            raise ValueError(f"Histogram needs scores that are not negative; '{units.name}' has some. Use Exact()")
    return [found[n] for n in range(len(pools))]
