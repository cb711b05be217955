"""What stands out goes: units that score far below the mean of those they compete with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.ranking import above, counts, keep_largest, where_float64_is
from lightning_prune.selection.protocol import Units, check_finite, common, held, shards_of
from lightning_prune.shards import each, total_of


@dataclass(frozen=True)
class BelowMean:
    """Drop the units that score more than some standard deviations below the mean of their pool.

    Mean and deviation are of the pool's units that are alive, each counted once. How many go is what the scores say;
    what the schedule asks for is the most that may: where more stand out, the lowest go up to that. So a run may end
    with less than was asked for, and at each update what stands out anew goes. With `scope=Uniform()` each layer is
    a pool, and with `criterion=APoZ()`, which scores 1 - APoZ, those go whose APoZ lies above the mean by one standard
    deviation. Source: Hu et al. 2016 (arXiv 1607.03250), section 3.2.

    Args:
        deviations: by how many standard deviations a score must lie below the mean, above 0.

    Raises:
        ValueError: it is out of range.
    """

    deviations: float = 1.0

    exact: bool = field(default=False, init=False, repr=False)
    at_most: bool = field(default=True, init=False, repr=False)
    """What is asked for is a bound: to end with less is no fault."""

    def __post_init__(self) -> None:
        given.number("deviations", self.deviations, above=0, hint=", such as 1.0")

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return which units to keep, and the score below which units go."""
        check_finite(pool)
        values, absolute = common(pool)
        shards = shards_of(pool)
        alive = [torch.ones_like(u.values, dtype=torch.bool) if u.alive is None else u.alive for u in pool]
        number = max(1, sum(each(counts(alive), shards)))
        scored = list(zip(values, alive, strict=True))
        sums = [_of_alive(_scores(v, absolute), a).sum() for v, a in scored]
        mean = float(total_of(sums, shards)) / number
        squares = [_of_alive((_scores(v, absolute) - mean).square_(), a).sum() for v, a in scored]
        threshold = mean - self.deviations * math.sqrt(float(total_of(squares, shards)) / number)
        stay = above(values, absolute, threshold, equal=True)
        safe = [torch.zeros_like(a) if u.protected is None else u.protected for a, u in zip(alive, pool, strict=True)]
        going = [a & ~s & ~p for a, s, p in zip(alive, stay, safe, strict=True)]
        keeps = [a & ~g for a, g in zip(alive, going, strict=True)]
        whole, left, gone = (sum(held(pool, which)) for which in ([None] * len(pool), alive, going))
        room = drop - (whole - left)
        if gone <= room:
            return keeps, threshold
        back = _all_but_lowest(pool, values, absolute, going, room)
        return [k | b for k, b in zip(keeps, back, strict=True)], threshold


def _of_alive(scores: Tensor, alive: Tensor) -> Tensor:
    return scores.masked_fill_(~alive.to(scores.device), 0.0)


def _scores(values: Tensor, absolute: bool) -> Tensor:
    """Return scores as new float64 numbers; on the CPU, where a device has none."""
    wide = where_float64_is(values.detach())
    return wide.abs().double() if absolute else wide.to(torch.float64, copy=True)


def _all_but_lowest(
    pool: Sequence[Units], values: Sequence[Tensor], absolute: bool, going: Sequence[Tensor], room: int
) -> list[Tensor]:
    """Return which of the units that stand out stay all the same: all but the lowest, which hold `room` weights."""
    first = pool[0].weights
    if isinstance(first, int) and all(isinstance(u.weights, int) and u.weights == first for u in pool):
        number = max(0, room) // first
        return (
            list(going) if not number else keep_largest(values, going, number, absolute, None, (), shards_of(pool))[0]
        )
    scores = torch.cat([_scores(v, absolute).flatten().cpu() for v in values])
    goes = torch.cat([g.flatten().cpu() for g in going])
    holds = torch.cat([torch.as_tensor(u.weights).cpu().expand(u.values.shape).flatten() for u in pool])
    order = scores.masked_fill(~goes, math.inf).argsort(stable=True)[: int(goes.sum())]
    goes[order[holds[order].cumsum(0) <= room]] = False
    parts = goes.split([v.numel() for v in values])
    return [part.view(v.shape).to(v.device) for part, v in zip(parts, values, strict=True)]
