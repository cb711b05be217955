"""Exactly as many weights as asked for go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune.ranking import Contest, NotFiniteError, keep_largest, keep_largest_of_each
from lightning_prune.selection.protocol import Units, check_finite, common, held, non_finite

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
        values, absolute = common(pool)
        keeps: list[Tensor | None] = [u.alive for u in pool]
        threshold = pool[0].threshold
        living = held(pool, keeps)
        drop -= sum(held(pool, [None] * len(pool))) - sum(living)
        plain = all(u.protected is None for u in pool)
        for tier in _tiers(pool):
            if drop <= 0:
                break
            holds = living if plain else held(pool, tier)
            going = min(drop, sum(holds))
            if going > 0:
                ranked = _Tier(pool, values, absolute, tier, going, holds)
                kept, boundary = _drop_equal(ranked) if _equal(pool) else _drop_ragged(ranked)
                threshold = threshold if boundary is None else boundary
                for i in range(len(kept)):
                    keeps[i] = kept[i] = _stay(keeps[i], tier[i], kept[i])
            drop -= sum(holds)
        return [_all(u) if k is None else k for u, k in zip(pool, keeps, strict=True)], threshold

    def of_each(self, pools: Sequence[Sequence[Units]], drops: Sequence[int]) -> list[tuple[list[Tensor], float]]:
        """Return the same for each of several pools; on a device, pools that are ranked but once are ranked together.

        These are pools of which nothing is protected and whose units all hold the same number of weights.
        """
        contests: dict[int, Contest] = {}
        for number, (pool, drop) in enumerate(zip(pools, drops, strict=True)):
            alive, first = [u.alive for u in pool], pool[0].weights
            if not _equal(pool) or not isinstance(first, int) or any(u.protected is not None for u in pool):
                continue
            living = sum(held(pool, alive))
            going = round(min(drop - (sum(held(pool, [None] * len(pool))) - living), living) / first)
            if going > 0:
                values, absolute = common(pool)
                contests[number] = Contest(values, alive, going, living // first, absolute)
        try:
            found = dict(zip(contests, keep_largest_of_each(list(contests.values())), strict=True))
        except NotFiniteError as error:
            raise non_finite(pools[list(contests)[error.contest]][error.index].name) from None
        rest = {n: self(pools[n], drops[n], 0.0) for n in range(len(pools)) if n not in found}
        return [found[n] if n in found else rest[n] for n in range(len(pools))]


@dataclass(frozen=True)
class _Tier:
    """Units of which some go: their values, who contends, how many weights are to go and how many those hold."""

    pool: Sequence[Units]
    values: list[Tensor]
    absolute: bool
    contend: Tier
    drop: int
    holds: Sequence[int]


def _equal(pool: Sequence[Units]) -> bool:
    """Return whether all units hold the same number of weights."""
    first = pool[0].weights
    return isinstance(first, int) and all(isinstance(u.weights, int) and u.weights == first for u in pool)


def _tiers(pool: Sequence[Units]) -> Iterator[Tier]:
    """Yield who contends first and, where units are protected, who contends once those are gone."""
    if all(u.protected is None for u in pool):
        yield [u.alive for u in pool]
        return
    for last in (False, True):
        tier = Tier()
        for u in pool:
            alive = _all(u) if u.alive is None else u.alive
            protected = torch.zeros_like(alive) if u.protected is None else u.protected
            tier.append(alive & (protected if last else ~protected))
        yield tier


def _all(units: Units) -> Tensor:
    return torch.ones_like(units.values, dtype=torch.bool)


def _stay(keep: Tensor | None, contender: Tensor | None, kept: Tensor) -> Tensor:
    """Return who stays: of the contenders those that were kept, of the others all that stood before."""
    if contender is keep or contender is None:
        return kept
    return kept | (~contender if keep is None else keep & ~contender)


def _drop_equal(tier: _Tier) -> tuple[list[Tensor], float | None]:
    """Drop the number of units nearest to the weights that are to go, where all units hold the same."""
    size = tier.pool[0].weights
    assert isinstance(size, int)
    number = round(tier.drop / size)
    if number == 0:
        return [_all(u) if t is None else t for u, t in zip(tier.pool, tier.contend, strict=True)], None
    try:
        return keep_largest(tier.values, tier.contend, number, tier.absolute, [few // size for few in tier.holds])
    except NotFiniteError as error:
        raise non_finite(tier.pool[error.index].name) from None


def _drop_ragged(tier: _Tier) -> tuple[list[Tensor], float | None]:
    """Drop units in order of score until the weights dropped are as near to what is to go as they come."""
    check_finite(tier.pool)
    scores = [v.abs() if tier.absolute else v for v in tier.values]
    contends = [_all(u) if t is None else t for u, t in zip(tier.pool, tier.contend, strict=True)]
    weights = [
        u.weights.to(s.device, non_blocking=True)
        if isinstance(u.weights, Tensor)
        else torch.full_like(s, u.weights, dtype=torch.int64)
        for u, s in zip(tier.pool, scores, strict=True)
    ]
    chosen = torch.cat([c.flatten() for c in contends]).nonzero().flatten().flip(0)  # the later of equals goes first
    score = torch.cat([s.flatten() for s in scores])[chosen]
    ranked = score.argsort(stable=True)
    removed = torch.cat([w.flatten() for w in weights])[chosen[ranked]].cumsum(0)
    number = int((torch.cat([removed.new_zeros(1), removed]) - tier.drop).abs().argmin())
    keep = torch.cat([c.flatten() for c in contends])
    keep[chosen[ranked[:number]]] = False
    parts = keep.split([s.numel() for s in scores])
    boundary = float(score[ranked[number - 1]]) if number else None
    return [part.view(s.shape) for part, s in zip(parts, scores, strict=True)], boundary
