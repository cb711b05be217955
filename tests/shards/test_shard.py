"""Places of pieces in their wholes, against an index of the whole; numbers of one process that has all pieces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune.masks import checksums
from lightning_prune.masks.checksum import piece_of
from lightning_prune.shards import Shard, check_whole, each, gathered, highest, kinds, local, shard_of, total, whole

SHAPES = st.lists(st.integers(1, 11), min_size=1, max_size=4)


@st.composite
def pieces(draw: st.DrawFn) -> Shard:
    shape = draw(SHAPES)
    starts = [draw(st.integers(0, size)) for size in shape]
    ends = [draw(st.integers(start, size)) for start, size in zip(starts, shape, strict=True)]
    box = tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))
    return Shard(torch.Size(shape), box, (), torch.device("cpu"), torch.empty(0))


def index_of(shard: Shard) -> Tensor:
    return torch.arange(shard.size).view(shard.shape)


@given(pieces(), st.integers(0, 99))
def test_positions_are_those_of_the_whole(shard: Shard, seed: int) -> None:
    flags = torch.rand(shard.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    here = shard.piece(flags)
    assert torch.equal(shard.positions(here), shard.piece(index_of(shard))[here])
    assert torch.equal(shard.within(flags.flatten().nonzero().flatten()), here)


@given(pieces(), st.randoms(use_true_random=False))
def test_places_in_any_order_of_the_dimensions(shard: Shard, random: object) -> None:
    order = list(range(len(shard.shape)))
    random.shuffle(order)  # pyright: ignore[reportAttributeAccessIssue]
    of_all = torch.arange(shard.size).view([shard.shape[dim] for dim in order])
    expected = of_all[tuple(shard.box[dim] for dim in order)].flatten()
    assert torch.equal(shard.place(torch.arange(expected.numel()), order), expected)


@given(pieces())
def test_runs_lie_side_by_side_in_the_whole(shard: Shard) -> None:
    starts, length = shard.runs()
    every = (starts[:, None] + torch.arange(length)).flatten()
    assert torch.equal(every, shard.piece(index_of(shard)).flatten())


@given(SHAPES, st.integers(0, 99), st.data())
def test_the_checksums_of_pieces_add_up_to_that_of_the_whole(shape: list[int], seed: int, data: st.DataObject) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    dim = data.draw(st.integers(0, len(shape) - 1))
    cut = data.draw(st.integers(0, shape[dim]))
    found = 0
    for ends in (slice(0, cut), slice(cut, shape[dim])):
        box = tuple(ends if d == dim else slice(0, size) for d, size in enumerate(shape))
        shard = Shard(mask.shape, box, (), torch.device("cpu"), torch.empty(0))
        found += int(piece_of(shard.piece(mask), shard))
    assert (found - checksums([mask])[0]) % (1 << 64) == 0


def test_plain_tensors_are_their_own_pieces() -> None:
    weight = nn.Parameter(torch.ones(3))
    assert shard_of(weight) is None
    assert local(weight) is weight
    assert whole(weight, None) is weight
    assert each([1, torch.tensor(2)], [None, None]) == [1, 2]
    assert highest([3, 4], [None]) == [3, 4]
    assert kinds([None, None]) == [()]
    assert total([((), torch.tensor([1, 2])), ((), torch.tensor([3, 4]))]).tolist() == [4, 6]
    assert gathered(torch.tensor([1, 2]), None).tolist() == [1, 2]
    check_whole(nn.Linear(2, 2), "something needs", "do something else")


@pytest.mark.parametrize("size", [0, 5])
def test_a_piece_may_be_all_or_nothing(size: int) -> None:
    shard = Shard(torch.Size([5]), (slice(0, size),), (), torch.device("cpu"), torch.empty(0))
    assert shard.positions(torch.ones(size, dtype=torch.bool)).tolist() == list(range(size))
    assert int(piece_of(torch.ones(size, dtype=torch.bool), shard)) == (
        checksums([torch.ones(5, dtype=torch.bool)])[0] if size else 0
    )
