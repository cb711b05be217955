"""A floor under each layer of a pool: where a selection leaves a layer too few weights, its best ones stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import islice

import torch
from torch import Tensor

from lightning_prune.ranking import NotFiniteError, Spared, count, keep_largest
from lightning_prune.selection import Exact, Selection, Units, non_finite

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


def _at_once(layers: Sequence[Sequence[Units]], least: Sequence[int], drop: int) -> tuple[list[Tensor], float] | None:
    """Return what `Exact` gives, found in one ranking; None where that does not tell."""
    pool = [units for layer in layers for units in layer]
    size, absolute = pool[0].weights, pool[0].absolute
    if not isinstance(size, int) or not all(
        u.protected is None and u.absolute == absolute and isinstance(u.weights, int) and u.weights == size
        for u in pool
    ):
        return None
    living = [u.values.numel() if u.alive is None else count(u.alive) for u in pool]
    each = iter(living)
    spared: list[Spared] = []
    for layer, few in zip(layers, least, strict=True):
        first = spared[-1].end if spared else 0
        spared.append(Spared(first, first + len(layer), min(-(-few // size), sum(islice(each, len(layer))))))
    room = sum(u.values.numel() for u in pool) * size - drop
    going = round((sum(living) * size - room) / size)
    if going <= 0 or sum(run.least for run in spared) * size > room:
        return None
    dtype = reduce(torch.promote_types, (u.values.dtype for u in pool))
    values, alive = [u.values.to(dtype) for u in pool], [u.alive for u in pool]
    try:
        return keep_largest(values, alive, going, absolute, sum(living), spared)
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
    room = sum(_weights(units, None) for units in pool) - drop
    saved: dict[int, list[Tensor]] = {}
    while True:
        parts = iter(keeps)
        kept = [[next(parts) for _ in layer] for layer in layers]
        short = {
            number: _best(layer, few)
            for number, (layer, keep, few) in enumerate(zip(layers, kept, least, strict=True))
            if number not in saved and _is_short(layer, keep, few)
        }
        if not any(bool((b & ~k).any()) for number in short for b, k in zip(short[number], kept[number], strict=True)):
            return keeps, threshold
        saved |= short
        spared = [
            best
            for number, layer in enumerate(layers)
            for best in saved.get(number, [torch.zeros_like(units.values, dtype=torch.bool) for units in layer])
        ]
        held = sum(_weights(units, best) for units, best in zip(pool, spared, strict=True))
        if held > room:
            contest = [replace(units, alive=best) for units, best in zip(pool, spared, strict=True)]
            return selection(contest, drop, sparsity)
        contest = [
            replace(units, alive=~best if units.alive is None else units.alive & ~best)
            for units, best in zip(pool, spared, strict=True)
        ]
        found, threshold = selection(contest, drop + held, sparsity)
        keeps = [keep | best for keep, best in zip(found, spared, strict=True)]


def _is_short(layer: Sequence[Units], keeps: Sequence[Tensor], least: int) -> bool:
    for glance in (True, False):
        held = 0
        for units, keep in zip(layer, keeps, strict=True):
            equal = isinstance(units.weights, int)
            held += _weights(units, keep.flatten()[:_GLANCE] if glance and equal else keep)
            if held >= least:
                return False
    return True


def _best(layer: Sequence[Units], least: int) -> list[Tensor]:
    """Return the best units of a layer that are alive, as many as hold `least` weights; of equals the first."""
    first = layer[0].weights
    if not isinstance(first, int) or not all(isinstance(u.weights, int) and u.weights == first for u in layer):
        return _best_of_unequal(layer, least)
    alive = [units.alive for units in layer]
    living = sum(u.values.numel() if a is None else count(a) for u, a in zip(layer, alive, strict=True))
    drop = living - -(-least // first)
    if drop <= 0:
        return [torch.ones_like(u.values, dtype=torch.bool) if u.alive is None else u.alive for u in layer]
    dtype = reduce(torch.promote_types, (u.values.dtype for u in layer))
    try:
        return keep_largest([u.values.to(dtype) for u in layer], alive, drop, layer[0].absolute, living)[0]
    except NotFiniteError as error:
        raise non_finite(layer[error.index].name) from None


def _best_of_unequal(layer: Sequence[Units], least: int) -> list[Tensor]:
    scores = torch.cat([u.scores().flatten().double().cpu() for u in layer])
    living = [torch.ones_like(u.values, dtype=torch.bool) if u.alive is None else u.alive for u in layer]
    alive = torch.cat([a.flatten().cpu() for a in living])
    holds = torch.cat([torch.as_tensor(u.weights).expand(u.values.shape).flatten().cpu() for u in layer])
    order = scores.masked_fill(~alive, -torch.inf).argsort(descending=True, stable=True)
    order = order[alive[order]]
    before = holds[order].cumsum(0) - holds[order]
    best = torch.zeros_like(alive).index_fill_(0, order[before < least], True)
    parts = best.split([u.values.numel() for u in layer])
    return [part.view(u.values.shape).to(u.values.device) for part, u in zip(parts, layer, strict=True)]


def _weights(units: Units, which: Tensor | None) -> int:
    """Return how many weights the units hold, or those of them named by `which`."""
    if isinstance(units.weights, int):
        return units.weights * (units.values.numel() if which is None else count(which))
    return int((units.weights if which is None else units.weights[which.to(units.weights.device)]).sum())
