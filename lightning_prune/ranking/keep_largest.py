"""Drop the smallest of many values spread over many tensors: exactly, in linear time, with nothing concatenated.

Two ways to one answer. On the CPU a sample brackets the boundary, one pass over the values writes the masks as if the
bracket were kept and collects the few values inside it, and those are then put right. Where the sample misses, and on
other devices, the boundary comes from counting bits (`counting`). Of equal values the later one goes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.ranking import float_keys
from lightning_prune.ranking.counting import Contest, decide
from lightning_prune.ranking.counts import NUMPY, counts
from lightning_prune.ranking.float_keys import NotFiniteError
from lightning_prune.ranking.spared import Spared
from lightning_prune.shards import Shard, each

_NUMPY = NUMPY


def keep_largest(
    values: Sequence[Tensor],
    contenders: Sequence[Tensor | None],
    drop: int,
    absolute: bool,
    contending: Sequence[int] | None = None,
    spared: Sequence[Spared] = (),
    shards: Sequence[Shard | None] = (),
) -> tuple[list[Tensor], float]:
    """Drop the `drop` smallest contenders, and return which stay and the value at the boundary.

    Args:
        values: floats of one dtype and device, any shapes.
        contenders: bool in the values' shapes, which of them take part; None means all.
        drop: how many go, at least 1 and at most as many as contend.
        absolute: rank |values|.
        contending: how many contend in each tensor, if that is known.
        spared: tensors of which some stay in any case, in their order; the others give more, and `drop` go in all. No
            more than are to stay.
        shards: of which wholes the values are pieces; empty if none is. Numbers are then those of the wholes, and every
            rank that has pieces of the same weights calls this.

    Returns:
        Bool tensors in the values' shapes, true for contenders that stay; and the largest value dropped.

    Raises:
        NotFiniteError: one of the values is NaN or infinite.
    """
    if contending is None:
        contending = _contending(values, contenders, shards)
    contest = Contest(values, contenders, drop, sum(contending), absolute, shards)
    masks, key = _by_bracket(contest, spared) or _by_counting(
        values, contenders, drop, absolute, spared, contending, shards
    )
    return masks, float_keys.value_of(key, values[0].dtype)


def keep_largest_of_each(contests: Sequence[Contest]) -> list[tuple[list[Tensor], float]]:
    """Return what `keep_largest` gives for each of several contests; on a device they are ranked at once.

    Raises:
        NotFiniteError: one of the values is NaN or infinite; `contest` says in which contest.
    """
    found: dict[int, tuple[list[Tensor], int]] = {}
    counted: dict[tuple[torch.dtype, bool], list[int]] = {}
    for number, contest in enumerate(contests):
        try:
            answer = _by_bracket(contest)
        except NotFiniteError as error:
            raise NotFiniteError(error.index, number) from None
        if answer is not None:
            found[number] = answer
        else:
            counted.setdefault((contest.values[0].dtype, contest.absolute), []).append(number)
    for numbers in counted.values():
        try:
            outcomes = decide([contests[number] for number in numbers])
        except NotFiniteError as error:
            raise NotFiniteError(error.index, numbers[error.contest]) from None
        found |= {n: (outcome.masks, outcome.boundary) for n, outcome in zip(numbers, outcomes, strict=True)}
    dtypes = [contest.values[0].dtype for contest in contests]
    return [(found[n][0], float_keys.value_of(found[n][1], dtype)) for n, dtype in enumerate(dtypes)]


def _by_bracket(contest: Contest, spared: Sequence[Spared] = ()) -> tuple[list[Tensor], int] | None:
    """Return masks and boundary key, or None where counting has to find them."""
    if not _NUMPY or contest.split or contest.values[0].device.type != "cpu":
        return None
    from lightning_prune.ranking.bracket import by_bracket

    return by_bracket(contest.values, contest.contenders, contest.drop, contest.absolute, contest.contending, spared)


def _contending(
    values: Sequence[Tensor], contenders: Sequence[Tensor | None], shards: Sequence[Shard | None]
) -> list[int]:
    known = iter(counts(c for c in contenders if c is not None))
    here = [v.numel() if c is None else next(known) for v, c in zip(values, contenders, strict=True)]
    return each(here, shards) if shards else here


def _by_counting(
    values: Sequence[Tensor],
    contenders: Sequence[Tensor | None],
    drop: int,
    absolute: bool,
    spared: Sequence[Spared] = (),
    contending: Sequence[int] | None = None,
    shards: Sequence[Shard | None] = (),
) -> tuple[list[Tensor], int]:
    if contending is None:
        contending = _contending(values, contenders, shards)
    (plain,) = decide([Contest(values, contenders, drop, sum(contending), absolute, shards)], counted=bool(spared))
    if all(sum(plain.kept[run.first : run.end]) >= run.least for run in spared):
        return plain.masks, plain.boundary
    del plain
    best = _best(values, contenders, absolute, spared, contending, shards)
    rest = [~b if c is None else c & ~b for c, b in zip(contenders, best, strict=True)]
    free = sum(contending) - sum(run.least for run in spared)
    (others,) = decide([Contest(values, rest, drop, free, absolute, shards)])
    return [m.logical_or_(b) for m, b in zip(others.masks, best, strict=True)], others.boundary


def _best(
    values: Sequence[Tensor],
    contenders: Sequence[Tensor | None],
    absolute: bool,
    spared: Sequence[Spared],
    contending: Sequence[int],
    shards: Sequence[Shard | None],
) -> list[Tensor]:
    """Return who stays in any case: of each run the best, all runs ranked at once."""
    best: list[Tensor] = [v.new_zeros(v.shape, dtype=torch.bool) for v in values]
    ranked: list[Spared] = []
    contests: list[Contest] = []
    for run in spared:
        of = slice(run.first, run.end)
        living = sum(contending[of])
        if living == run.least:
            every = zip(values[of], contenders[of], strict=True)
            best[of] = [v.new_ones(v.shape, dtype=torch.bool) if c is None else c for v, c in every]
        elif run.least:
            ranked.append(run)
            contests.append(Contest(values[of], contenders[of], living - run.least, living, absolute, shards[of]))
    for run, outcome in zip(ranked, decide(contests) if contests else (), strict=True):
        best[run.first : run.end] = outcome.masks
    return best
