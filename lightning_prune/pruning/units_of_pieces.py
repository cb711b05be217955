"""Units of weights that are taken apart: those of a piece, and all of them where a ranking needs them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import Pattern, TiledPattern
from lightning_prune.pruning.contest import WeightContest, with_units
from lightning_prune.selection import Units
from lightning_prune.shards import Grid, Shard, grid_of, wholes


def grid_at(weight: MaskedWeight, pattern: Any) -> Grid | None:
    """Return which units of a weight lie in its piece; None where it has none, or a pattern needs the whole weight."""
    shard = weight.shard
    if shard is None or weight.experts > 1 or not isinstance(pattern, TiledPattern):
        return None
    if getattr(pattern, "means", False) and shard.device.type != "cpu":
        return None
    tiles, order = pattern.tiles(_canonical_shape(weight)), _order(weight)
    grid = grid_of(shard, order, tiles.view, tiles.sizes)
    return grid_of(shard, order, tiles.view, [1] * len(tiles.view)) if grid and getattr(pattern, "entries", 0) else grid


def shape_of_one(weight: MaskedWeight) -> torch.Size:
    """Return the shape of the whole weight, output dimension first; of a stack of experts that of one."""
    of = weight.mask if weight.shard is None else torch.empty(weight.shape, device="meta")
    return weight.parts(weight.canonical(of))[0].shape


def held_by_one(pattern: Pattern, weight: MaskedWeight) -> int | None:
    """Return how many entries of a weight a unit holds; None where some hold fewer."""
    holds = pattern.weights_per_unit(_canonical_shape(weight))
    return holds if isinstance(holds, int) else None


def _order(weight: MaskedWeight) -> Sequence[int]:
    layout = weight.target.layout
    return range(len(weight.shape)) if layout is None else layout.order


def _canonical_shape(weight: MaskedWeight) -> torch.Size:
    return torch.Size([weight.shape[dim] for dim in _order(weight)])


def units_here(
    grid: Grid, weight: MaskedWeight, pattern: Pattern, scores: Tensor, mask: Tensor | None, absolute: bool
) -> Units:
    """Return the units of a piece.

    Args:
        grid: which they are.
        weight: whose.
        pattern: what they are.
        scores: of the piece, output dimension first; or, where `absolute`, the piece itself.
        mask: of the piece; None where all of it competes.
        absolute: whether entries are ranked by |values|.
    """
    name, threshold, shard = weight.target.name, float(weight.threshold), grid.shard
    values, alive = scores.reshape(grid.view), None if mask is None else weight.canonical(mask).reshape(grid.view)
    if getattr(pattern, "entries", False):
        living = None if alive is None else weight.size - weight.pruned
        return Units(name, values, absolute, alive, threshold=threshold, living=living, shard=shard)
    alive = None if alive is None else _pooled(grid, pattern, alive.float()) > 0
    holds = pattern.weights_per_unit(_canonical_shape(weight))
    return Units(name, _pooled(grid, pattern, values), False, alive, None, holds, threshold, shard=shard)


def _pooled(grid: Grid, pattern: Pattern, scores: Tensor) -> Tensor:
    """Return one score per unit of a piece, in the units' shape."""
    assert isinstance(pattern, TiledPattern)
    if not scores.numel():
        return torch.zeros(grid.here, dtype=torch.promote_types(scores.dtype, torch.float32), device=scores.device)
    return pattern.pooled(scores, grid.sizes).reshape(grid.here)


def mask_of(grid: Grid, weight: MaskedWeight, keep: Tensor) -> Tensor:
    """Return the mask of a piece for the units that stay: those of the piece, or all of the weight, flattened."""
    mask = grid.expand(piece_of(keep, grid.shard))
    # Of a canonical piece: dimensions that are one in the view are taken apart again.
    return weight.restore(mask.reshape(weight.canonical(weight.mask).shape)).contiguous()


def piece_of(keep: Tensor, shard: Shard | None) -> Tensor:
    """Return the answers for the units of a piece from those for all, flattened; or from these as they are."""
    if shard is None or keep.numel() != shard.size:
        return keep
    return shard.piece(keep.view(shard.shape))


def joined(contests: Sequence[WeightContest]) -> list[WeightContest]:
    """Return contests with all units of a weight on every rank where they have to be ranked together.

    That is so where units of a pool hold different numbers of weights, or the best of each weight is protected: they
    are few. Otherwise those of pieces stay where they are, and are counted.
    """
    units = [u for contest in contests for layer in contest.layers for u in layer]
    split = [u for contest in contests for u in _ranked_together(contest)]
    shards = [u.shard for u in split if u.shard is not None]
    if not shards:
        return list(contests)
    masked = [u for u in split if u.alive is not None]
    flags = [u.alive for u in split if u.alive is not None]
    values = dict(zip(map(id, split), wholes([u.values for u in split], shards), strict=True))
    alive = dict(zip(map(id, masked), wholes(flags, [u.shard for u in masked if u.shard is not None]), strict=True))
    found = [
        replace(u, values=values[id(u)], alive=alive.get(id(u)), shard=None, weights=_flat(u.weights))
        if id(u) in values
        else u
        for u in units
    ]
    return with_units(contests, found)


def _flat(weights: int | Tensor) -> int | Tensor:
    return weights.flatten() if isinstance(weights, Tensor) else weights


def _ranked_together(contest: WeightContest) -> list[Units]:
    """Return the units of pieces of which a contest needs those of all ranks."""
    each = [u for layer in contest.layers for u in layer]
    sizes = {u.weights if isinstance(u.weights, int) else None for u in each}
    if len(sizes) > 1 or None in sizes:
        return [u for u in each if u.shard is not None]
    return [u for u in contest.sparing if u.shard is not None]
