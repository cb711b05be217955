"""Exactly as many weights as asked for go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from lightning_prune.ranking import Contest, NotFiniteError, keep_largest_of_each, on_host
from lightning_prune.selection.protocol import Units, check_finite, common, held, non_finite, shards_of

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
        ((keeps, threshold),) = self.of_each([pool], [drop], [sparsity])
        return keeps, threshold

    def of_each(
        self, pools: Sequence[Sequence[Units]], drops: Sequence[int], sparsities: Sequence[float]
    ) -> list[tuple[list[Tensor], float]]:
        """Return the same for each of several pools; on a device all are ranked together, tier by tier."""
        every = range(len(pools))
        alive = [[u.alive for u in pool] for pool in pools]
        keeps: list[list[Tensor | None]] = [list(some) for some in alive]
        thresholds = [pool[0].threshold for pool in pools]
        living = _held_each(pools, alive)
        whole = [sum(held(pool, [None] * len(pool))) for pool in pools]
        left = [drops[n] - (whole[n] - sum(living[n])) for n in every]
        plain = [all(u.protected is None for u in pool) for pool in pools]
        tiers = [_tiers(pool) for pool in pools]
        going = [n for n in every if left[n] > 0]
        while going:
            contend = {n: tier for n in going if (tier := next(tiers[n], None)) is not None}
            counted = [n for n in contend if not plain[n]]
            found = _held_each([pools[n] for n in counted], [contend[n] for n in counted])
            holds = dict(zip(counted, found, strict=True)) | {n: living[n] for n in contend if plain[n]}
            ranked = {
                n: _Tier(pools[n], *common(pools[n]), contend[n], min(left[n], sum(holds[n])), holds[n])
                for n in contend
                if sum(holds[n]) > 0
            }
            for n, (kept, boundary) in zip(ranked, _drop_each(list(ranked.values())), strict=True):
                thresholds[n] = thresholds[n] if boundary is None else boundary
                for i in range(len(kept)):
                    keeps[n][i] = kept[i] = _stay(keeps[n][i], contend[n][i], kept[i])
            for n in contend:
                left[n] -= sum(holds[n])
            going = [n for n in contend if left[n] > 0]
        return [
            ([_all(u) if k is None else k for u, k in zip(pools[n], keeps[n], strict=True)], thresholds[n])
            for n in every
        ]


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
    """Return who stays: of the contenders those that were kept, of the others all that stood before.

    A tier among protected units is of no use any more then, and is written to: masks are a good part of an update.
    """
    if contender is keep or contender is None:
        return kept
    others = contender.clone() if kept is contender else contender
    others.logical_not_()
    return kept.logical_or_(others if keep is None else others.logical_and_(keep))


def _held_each(pools: Sequence[Sequence[Units]], which: Sequence[Tier]) -> list[list[int]]:
    """Return how many weights the units named hold of each member of each pool: one synchronization for all."""
    found = iter(held([u for pool in pools for u in pool], [some for tier in which for some in tier]))
    return [list(islice(found, len(pool))) for pool in pools]


def _drop_each(tiers: Sequence[_Tier]) -> list[tuple[list[Tensor], float | None]]:
    """Return of each tier which units stay, and the largest score that went; those on a device are ranked together."""
    found: dict[int, tuple[list[Tensor], float | None]] = {}
    contests: dict[int, Contest] = {}
    for n, tier in enumerate(tiers):
        size = tier.pool[0].weights
        if not _equal(tier.pool) or not isinstance(size, int):
            continue
        number = round(tier.drop / size)  # the number of units nearest to the weights that are to go
        if number == 0:
            found[n] = [_all(u) if t is None else t for u, t in zip(tier.pool, tier.contend, strict=True)], None
        else:
            living, shards = sum(tier.holds) // size, shards_of(tier.pool)
            contests[n] = Contest(tier.values, tier.contend, number, living, tier.absolute, shards)
    try:
        found |= zip(contests, keep_largest_of_each(list(contests.values())), strict=True)
    except NotFiniteError as error:
        raise non_finite(tiers[list(contests)[error.contest]].pool[error.index].name) from None
    ragged = [n for n in range(len(tiers)) if n not in found]
    found |= zip(ragged, _drop_ragged([tiers[n] for n in ragged]), strict=True)
    return [found[n] for n in range(len(tiers))]


def _drop_ragged(tiers: Sequence[_Tier]) -> list[tuple[list[Tensor], float | None]]:
    """Drop units in order of score until the weights dropped are as near to what is to go as they come."""
    check_finite([u for tier in tiers for u in tier.pool])
    ranked = [_ragged(tier) for tier in tiers]
    numbers = on_host([number for _, number, _ in ranked])
    boundaries = on_host([boundary for _, _, boundary in ranked])
    return [
        (keeps, float(boundary) if int(number) else None)
        for (keeps, _, _), number, boundary in zip(ranked, numbers, boundaries, strict=True)
    ]


def _ragged(tier: _Tier) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return which units stay, and on their device how many go and the largest score of those."""
    scores = [v.abs() if tier.absolute else v for v in tier.values]
    weights = [
        u.weights.to(s.device, non_blocking=True)
        if isinstance(u.weights, Tensor)
        else torch.full_like(s, u.weights, dtype=torch.int64)
        for u, s in zip(tier.pool, scores, strict=True)
    ]
    contends = [_all(u) if t is None else t for u, t in zip(tier.pool, tier.contend, strict=True)]
    contend, score, weight = (
        torch.cat([each.flatten() for each in some]).flip(0)  # the later of equals goes first
        for some in (contends, scores, weights)
    )
    if score.device.type == "cpu":
        places = contend.nonzero().flatten()
        places = places[score[places].argsort(stable=True)]
    else:  # to leave out who does not contend would wait for the device: they come last, and hold nothing
        weight *= contend
        places = score.masked_fill(~contend, torch.inf).argsort(stable=True)
    removed = weight[places].cumsum(0)
    number = (torch.cat([removed.new_zeros(1), removed]) - tier.drop).abs().argmin().view(1)
    goes = torch.zeros_like(contend).scatter_(0, places, torch.arange(len(places), device=places.device) < number)
    parts = contend.logical_and_(~goes).flip(0).split([s.numel() for s in scores])
    boundary = score[places[(number - 1).clamp_(min=0)]]
    return [part.view(s.shape) for part, s in zip(parts, scores, strict=True)], number, boundary
