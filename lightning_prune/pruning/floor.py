"""A floor under each layer of a pool: where a selection leaves a layer too few weights, its best ones stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import islice

import torch
from torch import Tensor

from lightning_prune.pruning.few_units import brought
from lightning_prune.ranking import Contest, NotFiniteError, Spared, keep_largest, keep_largest_of_each
from lightning_prune.selection import (
    Exact,
    Selection,
    SelectionOfEach,
    Units,
    check_finite,
    held,
    non_finite,
    shards_of,
)

_GLANCE = 1 << 14
"""Units looked at first: mostly enough to see that a layer keeps more than it must."""


def select(
    selection: Selection, layers: Sequence[Sequence[Units]], least: Sequence[int], drop: int, sparsity: float
) -> tuple[list[Tensor], float]:
    """Return which units of all layers to keep, and the threshold; no layer keeps fewer weights than its floor.

    The selection is asked without a floor first. For layers that fall short it is asked again, with the best units of
    theirs out of the contest, so that the others give more and as many weights go as before. Where those units are
    more than is to be kept in all, the best of them stay, and the floor gives way. `Exact` finds the same in one
    ranking where all units hold the same.

    Args:
        selection: from scores and counts to units.
        layers: the members of a pool; a layer may have several.
        least: how many weights each layer keeps at least; empty for no floor.
        drop: how many weights of the pool are to be zero.
        sparsity: the share asked for.

    Raises:
        ValueError: a score is not finite; the message names the weight.
    """
    at_once = _at_once(layers, least, drop) if isinstance(selection, Exact) and any(least) else None
    return at_once or _again(selection, layers, least, drop, sparsity)


def select_each(
    selection: Selection, asked: Sequence[tuple[Sequence[Sequence[Units]], Sequence[int], int, float]]
) -> list[tuple[list[Tensor], float]]:
    """Return what `select` gives for the layers, floors, drop and sparsity of each of several pools.

    A selection that can answers for all pools without floors at once.
    """
    plain = [n for n, (_, least, _, _) in enumerate(asked) if not any(least)]
    found: dict[int, tuple[list[Tensor], float]] = {}
    if len(plain) > 1 and isinstance(selection, SelectionOfEach):
        pools = [[units for layer in asked[n][0] for units in layer] for n in plain]
        answers = selection.of_each(pools, [asked[n][2] for n in plain], [asked[n][3] for n in plain])
        found = dict(zip(plain, answers, strict=True))
    return [found[n] if n in found else select(selection, *each) for n, each in enumerate(asked)]


def _at_once(layers: Sequence[Sequence[Units]], least: Sequence[int], drop: int) -> tuple[list[Tensor], float] | None:
    """Return what `Exact` gives, found in one ranking; None where that does not tell."""
    pool = [units for layer in layers for units in layer]
    size, absolute = pool[0].weights, pool[0].absolute
    if not isinstance(size, int) or not all(
        u.protected is None and u.absolute == absolute and isinstance(u.weights, int) and u.weights == size
        for u in pool
    ):
        return None
    living = [weights // size for weights in held(pool, [u.alive for u in pool])]
    each = iter(living)
    spared: list[Spared] = []
    for layer, few in zip(layers, least, strict=True):
        first = spared[-1].end if spared else 0
        spared.append(Spared(first, first + len(layer), min(-(-few // size), sum(islice(each, len(layer))))))
    room = sum(u.size for u in pool) * size - drop
    going = round((sum(living) * size - room) / size)
    if going <= 0 or sum(run.least for run in spared) * size > room:
        return None
    dtype = reduce(torch.promote_types, (u.values.dtype for u in pool))
    values, alive = [u.values.to(dtype) for u in pool], [u.alive for u in pool]
    try:
        return keep_largest(values, alive, going, absolute, living, spared, shards_of(pool))
    except NotFiniteError as error:
        raise non_finite(pool[error.index].name) from None


def _again(
    selection: Selection, layers: Sequence[Sequence[Units]], least: Sequence[int], drop: int, sparsity: float
) -> tuple[list[Tensor], float]:
    """Return what a selection gives that is asked again as long as layers fall short."""
    pool = [units for layer in layers for units in layer]
    keeps, threshold = selection(pool, drop, sparsity)
    if not any(least):
        return keeps, threshold
    room = sum(held(pool, [None] * len(pool))) - drop
    saved: dict[int, list[Tensor]] = {}
    while True:
        parts = iter(keeps)
        kept = [[next(parts) for _ in layer] for layer in layers]
        numbers = [n for n in range(len(layers)) if n not in saved]
        short = _short([layers[n] for n in numbers], [kept[n] for n in numbers], [least[n] for n in numbers])
        numbers = [n for n, few in zip(numbers, short, strict=True) if few]
        found = dict(
            zip(numbers, _best_of_each([layers[n] for n in numbers], [least[n] for n in numbers]), strict=True)
        )
        short_of = [units for n in numbers for units in layers[n]]
        if not any(held(short_of, [b & ~k for n in numbers for b, k in zip(found[n], kept[n], strict=True)])):
            return keeps, threshold
        saved |= found
        spared = [
            best
            for number, layer in enumerate(layers)
            for best in saved.get(number, [torch.zeros_like(units.values, dtype=torch.bool) for units in layer])
        ]
        safe = sum(held(pool, spared))
        if safe > room:
            contest = [replace(units, alive=best, living=None) for units, best in zip(pool, spared, strict=True)]
            return selection(contest, drop, sparsity)
        contest = [
            replace(units, alive=~best if units.alive is None else units.alive & ~best, living=None)
            for units, best in zip(pool, spared, strict=True)
        ]
        again, threshold = selection(contest, drop + safe, sparsity)
        keeps = [keep | best for keep, best in zip(again, spared, strict=True)]


def _short(layers: Sequence[Sequence[Units]], kept: Sequence[Sequence[Tensor]], least: Sequence[int]) -> list[bool]:
    """Return which layers keep fewer weights than their floor."""
    short = [True] * len(layers)
    for glance in (True, False):
        pool, keeps = list[Units](), list[Tensor]()
        for layer, some in zip(layers, kept, strict=True):
            for units, keep in zip(layer, some, strict=True):
                pool.append(units)
                keeps.append(keep.flatten()[:_GLANCE] if glance and isinstance(units.weights, int) else keep)
        found = iter(held(pool, keeps))
        short = [sum(islice(found, len(layer))) < few for layer, few in zip(layers, least, strict=True)]
        if not any(short):
            break
    return short


def _best_of_each(layers: Sequence[Sequence[Units]], least: Sequence[int]) -> list[list[Tensor]]:
    """Return the best units of each layer that are alive, as many as hold `least` weights; of equals the first."""
    best: dict[int, list[Tensor]] = {}
    contests: dict[int, Contest] = {}
    unequal: list[int] = []
    living = iter(held([u for layer in layers for u in layer], [u.alive for layer in layers for u in layer]))
    for number, (layer, few) in enumerate(zip(layers, least, strict=True)):
        weights, first = sum(islice(living, len(layer))), layer[0].weights
        if not isinstance(first, int) or not all(isinstance(u.weights, int) and u.weights == first for u in layer):
            unequal.append(number)
            continue
        drop = weights // first - -(-few // first)
        alive = [units.alive for units in layer]
        if drop <= 0:
            best[number] = [torch.ones_like(u.values, dtype=torch.bool) if u.alive is None else u.alive for u in layer]
            continue
        dtype = reduce(torch.promote_types, (u.values.dtype for u in layer))
        values = [u.values.to(dtype) for u in layer]
        contests[number] = Contest(values, alive, drop, weights // first, layer[0].absolute, shards_of(layer))
    try:
        ranked = keep_largest_of_each(list(contests.values()))
    except NotFiniteError as error:
        raise non_finite(layers[list(contests)[error.contest]][error.index].name) from None
    best |= {number: masks for number, (masks, _) in zip(contests, ranked, strict=True)}
    best |= zip(unequal, _best_of_unequal([layers[n] for n in unequal], [least[n] for n in unequal]), strict=True)
    return [best[number] for number in range(len(layers))]


def _best_of_unequal(layers: Sequence[Sequence[Units]], least: Sequence[int]) -> list[list[Tensor]]:
    pool = [units for layer in layers for units in layer]
    check_finite(pool)
    here = iter(brought(pool))
    return [_best_here(layer, [next(here) for _ in layer], few) for layer, few in zip(layers, least, strict=True)]


def _best_here(layer: Sequence[Units], here: Sequence[Units], least: int) -> list[Tensor]:
    """Return the best units of a layer where they are, from the same on the host."""
    scores = torch.cat([(u.values.abs() if u.absolute else u.values).flatten().double() for u in here])
    living = [torch.ones_like(u.values, dtype=torch.bool) if u.alive is None else u.alive for u in here]
    alive = torch.cat([a.flatten() for a in living])
    holds = torch.cat([torch.as_tensor(u.weights).expand(u.values.shape).flatten().cpu() for u in here])
    order = scores.masked_fill(~alive, -torch.inf).argsort(descending=True, stable=True)
    order = order[alive[order]]
    before = holds[order].cumsum(0) - holds[order]
    best = torch.zeros_like(alive).index_fill_(0, order[before < least], True)
    parts = best.split([u.values.numel() for u in layer])
    return [
        part.view(u.values.shape).to(u.values.device, non_blocking=True) for part, u in zip(parts, layer, strict=True)
    ]
