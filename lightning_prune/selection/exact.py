"""Exactly as many weights as asked for go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from lightning_prune.ranking import NotFiniteError, keep_largest
from lightning_prune.selection.protocol import Units, check_finite, held, non_finite

Tier = list[Tensor | None]
"""For each member of a pool which of its units contend; None means all."""


@dataclass(frozen=True)
class Exact:
    """Drop exactly as many weights as asked for, or as near to it as whole units allow.

    What was pruned before goes first, then units by score, protected ones last; of equal scores the later one goes,
    by layer and then by position. So the masks are the same on every machine and for any number of processes. The
    threshold is the largest score that this update dropped.
    """

    exact: bool = field(default=True, init=False, repr=False)

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return which units to keep, and the largest score dropped (the threshold so far where none was)."""
        common = reduce(torch.promote_types, (u.values.dtype for u in pool))
        values = [u.values.to(common) for u in pool]
        first = pool[0].weights
        equal = isinstance(first, int) and all(isinstance(u.weights, int) and u.weights == first for u in pool)
        keeps: list[Tensor | None] = [u.alive for u in pool]
        threshold = pool[0].threshold
        living = held(pool, keeps)
        drop -= sum(held(pool, [None] * len(pool))) - sum(living)
        tiers = _tiers(pool)
        for tier in tiers:
            holds = living if len(tiers) == 1 else held(pool, tier)
            going = min(drop, sum(holds))
            if going <= 0:
                continue
            kept, boundary = (
                _drop_equal(pool, values, tier, going, holds) if equal else _drop_ragged(pool, values, tier, going)
            )
            if boundary is not None:
                threshold = boundary
            keeps = [_stay(k, t, s) for k, t, s in zip(keeps, tier, kept, strict=True)]
            drop -= sum(holds)
        return [_all(u) if k is None else k for u, k in zip(pool, keeps, strict=True)], threshold


def _tiers(pool: Sequence[Units]) -> list[Tier]:
    """Return who contends first and, where units are protected, who contends once those are gone."""
    if all(u.protected is None for u in pool):
        return [[u.alive for u in pool]]
    free, last = Tier(), Tier()
    for u in pool:
        alive = _all(u) if u.alive is None else u.alive
        protected = torch.zeros_like(alive) if u.protected is None else u.protected
        free.append(alive & ~protected)
        last.append(alive & protected)
    return [free, last]


def _all(units: Units) -> Tensor:
    return torch.ones_like(units.values, dtype=torch.bool)


def _stay(keep: Tensor | None, contender: Tensor | None, kept: Tensor) -> Tensor:
    """Return who stays: of the contenders those that were kept, of the others all that stood before."""
    if contender is keep or contender is None:
        return kept
    return kept | (~contender if keep is None else keep & ~contender)


def _drop_equal(
    pool: Sequence[Units], values: list[Tensor], tier: Tier, drop: int, holds: Sequence[int]
) -> tuple[list[Tensor], float | None]:
    """Drop the number of units nearest to `drop` of the weights that this tier holds, where units hold the same."""
    size = pool[0].weights
    assert isinstance(size, int)
    number = round(drop / size)
    if number == 0:
        return [_all(u) if t is None else t for u, t in zip(pool, tier, strict=True)], None
    try:
        return keep_largest(values, tier, number, pool[0].absolute, [few // size for few in holds])
    except NotFiniteError as error:
        raise non_finite(pool[error.index].name) from None


def _drop_ragged(
    pool: Sequence[Units], values: list[Tensor], tier: Tier, drop: int
) -> tuple[list[Tensor], float | None]:
    """Drop units in order of score until the weights dropped are as near to `drop` as they come."""
    check_finite(pool)
    scores = [v.abs() if u.absolute else v for u, v in zip(pool, values, strict=True)]
    contends = [_all(u) if t is None else t for u, t in zip(pool, tier, strict=True)]
    weights = [
        torch.full_like(s, u.weights, dtype=torch.int64) if isinstance(u.weights, int) else u.weights.to(s.device)
        for u, s in zip(pool, scores, strict=True)
    ]
    chosen = torch.cat([c.flatten() for c in contends]).nonzero().flatten().flip(0)  # the later of equals goes first
    score = torch.cat([s.flatten() for s in scores])[chosen]
    ranked = score.argsort(stable=True)
    removed = torch.cat([w.flatten() for w in weights])[chosen[ranked]].cumsum(0)
    number = int((torch.cat([removed.new_zeros(1), removed]) - drop).abs().argmin())
    keep = torch.cat([c.flatten() for c in contends])
    keep[chosen[ranked[:number]]] = False
    parts = keep.split([s.numel() for s in scores])
    boundary = float(score[ranked[number - 1]]) if number else None
    return [part.view(s.shape) for part, s in zip(parts, scores, strict=True)], boundary
