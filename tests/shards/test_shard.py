"""Places of pieces in their wholes, against an index of the whole; numbers of one process that has all pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import placement_types as placements

from lightning_prune.masks import checksums
from lightning_prune.masks.checksum import piece_of
from lightning_prune.shards import (
    Shard,
    check_whole,
    each,
    gathered,
    grad_of,
    highest,
    is_plain,
    kinds,
    like,
    local,
    shard_of,
    total,
    whole,
)

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


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    """Make a mesh of one process, over which a tensor may be spread and lies whole."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def test_a_tensor_that_is_spread_over_one_rank_is_whole_but_not_plain(mesh: Any) -> None:
    weight = nn.Parameter(DTensor.from_local(torch.arange(4.0), mesh, [placements.Shard(0)]))
    assert shard_of(weight) is None
    assert not is_plain(weight)
    assert torch.equal(local(weight).detach(), torch.arange(4.0))
    alike = like(torch.ones(4), weight)
    assert alike.placements == weight.placements  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(local(alike), torch.ones(4))
    assert is_plain(like(torch.ones(4), torch.zeros(4)))
    check_whole(nn.ParameterDict({"w": weight}), "something needs", "do something else")


def test_G13_sums_that_are_not_reduced_have_no_values(mesh: Any) -> None:
    unreduced = DTensor.from_local(torch.ones(3), mesh, [placements.Partial()])
    with pytest.raises(ValueError, match=r"shape \(3,\) has the placements .*no values"):
        shard_of(unreduced)


def test_a_gradient_that_is_not_reduced_yet_is(mesh: Any) -> None:
    weight = nn.Parameter(DTensor.from_local(torch.zeros(3), mesh, [placements.Replicate()]))
    assert grad_of(weight) is None
    weight.grad = DTensor.from_local(torch.ones(3), mesh, [placements.Replicate()])
    assert grad_of(weight) is local(weight.grad)
    weight.grad = DTensor.from_local(torch.ones(3), mesh, [placements.Partial("sum")])
    reduced = grad_of(weight)
    assert reduced is not None
    assert is_plain(reduced)
    assert torch.equal(reduced, torch.ones(3))
