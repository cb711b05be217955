"""Units that lie in a piece: those of the whole weight at their places. All ranks say alike whether there are any."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.distributed.tensor import Replicate
from torch.distributed.tensor import Shard as Chunks

from lightning_prune.pattern import Block, Column, Kernel, NofM, Row
from lightning_prune.shards import Grid, Shard, grid_of

PATTERNS: list[Any] = [Row(), Column(), Kernel(), Block(2, 3), Block(3, 2, "max"), Block(-1, 2), Block(1, -1)]
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


class Spread:
    """Where a tensor lies, as a DTensor says it."""

    def __init__(self, placements: list[Any], ranks: list[int]) -> None:
        self.placements = placements
        self.device_mesh = SimpleNamespace(size=lambda number: ranks[number])


def pieces(shape: list[int], dims: list[int], ranks: list[int]) -> list[Shard]:
    """Return the pieces of all ranks of a mesh, each of whose dimensions splits another one of the tensor."""
    spread = Spread([Chunks(dim) for dim in dims] + [Replicate()], [*ranks, 2])
    boxes = [tuple(slice(0, length) for length in shape)]
    for dim, number in zip(dims, ranks, strict=True):
        size = -(-shape[dim] // number)
        borders = [min(shape[dim], size * rank) for rank in range(number + 1)]
        parts = [slice(a, b) for a, b in pairwise(borders)]
        boxes = [(*box[:dim], part, *box[dim + 1 :]) for box in boxes for part in parts]
    return [Shard(torch.Size(shape), box, (), torch.device("cpu"), cast(Any, spread)) for box in boxes]


@given(SHAPES, st.data(), st.sampled_from(PATTERNS), st.integers(0, 99))
def test_units_of_pieces_are_those_of_the_whole(shape: list[int], data: st.DataObject, pattern: Any, seed: int) -> None:
    dims = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=2, unique=True))
    ranks = [data.draw(st.integers(2, 4)) for _ in dims]
    tiles = pattern.tiles(torch.Size(shape))
    found = [(piece, grid_of(piece, range(len(shape)), *_of(tiles))) for piece in pieces(shape, dims, ranks)]
    if any(grid is None for _, grid in found):
        assert all(grid is None for _, grid in found)
        return
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    whole = pattern.units(scores)
    seen = torch.zeros(whole.numel(), dtype=torch.int64)
    keep = torch.rand(whole.shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    mask = pattern.expand(keep, scores.shape)
    for piece, grid in found:
        assert grid is not None
        here = piece.piece(scores)
        units = grid.shard.piece(whole.view(grid.shard.shape))
        assert units.shape == grid.here
        seen += _at(grid, whole.numel())
        if here.numel():
            assert torch.equal(pattern.pooled(here.reshape(grid.view), grid.sizes).reshape(grid.here), units)
        its = grid.expand(grid.shard.piece(keep.view(grid.shard.shape)))
        assert torch.equal(its.reshape(here.shape), piece.piece(mask))
    assert torch.equal(seen, torch.ones_like(seen))


def _of(tiles: Any) -> tuple[Any, Any]:
    return tiles.view, tiles.sizes


def _at(grid: Grid, number: int) -> torch.Tensor:
    return torch.zeros(number, dtype=torch.int64).index_fill_(
        0, grid.shard.positions(torch.ones(grid.here, dtype=torch.bool)), 1
    )


@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 4), st.integers(0, 1), st.integers(2, 4))
def test_groups_of_n_of_m_are_not_cut(outputs: int, inputs: int, ranks: int, dim: int, m: int) -> None:
    pattern = NofM(1, m)
    scores = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(m))
    best = pattern.protected(scores)
    for piece in pieces([outputs, inputs], [dim], [ranks]):
        grid = grid_of(piece, range(2), *_of(pattern.tiles(scores.shape)))
        here = piece.piece(scores)
        if dim == 0:
            assert grid is not None
        if grid is not None and here.numel():
            assert torch.equal(pattern.protected(here), piece.piece(best))


@given(st.integers(2, 40), st.integers(2, 4), st.integers(2, 6))
def test_units_are_local_exactly_where_no_border_cuts_one(outputs: int, ranks: int, height: int) -> None:
    assume(height <= outputs)
    every = pieces([outputs, 3], [0], [ranks])
    cut = any(piece.box[0].start % height and piece.box[0].start < outputs for piece in every)
    grid = grid_of(every[0], range(2), *_of(Block(height, 3).tiles(every[0].shape)))
    assert (grid is None) == cut


@pytest.mark.parametrize("pattern", [Row(), Column(), Kernel(), Block(1, 1)])
def test_where_borders_are_not_known_units_of_one_entry_alone_are_local(pattern: Any) -> None:
    """Two dimensions of a mesh that split the same one, as FSDP2 over tensor parallelism does."""
    shape = torch.Size([8, 6])
    spread = Spread([Chunks(0), Chunks(0)], [2, 2])
    shard = Shard(shape, (slice(2, 4), slice(0, 6)), (), torch.device("cpu"), cast(Any, spread))
    assert (grid_of(shard, range(2), *_of(pattern.tiles(shape))) is None) == isinstance(pattern, Column)
    assert grid_of(shard, range(2), *_of(Block(2, 3).tiles(shape))) is None
