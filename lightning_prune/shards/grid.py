"""Units that tile a weight, and which of them lie in a piece of it: where no border between pieces cuts one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from lightning_prune.shards.shard import Shard


@dataclass(frozen=True)
class Grid:
    """The units of a weight that is taken apart.

    Attributes:
        view: the shape of the piece that lies here, as the units' pattern sees weights.
        sizes: how many entries a unit takes along each dimension of that; those at the end may be cut off.
        shard: the units as a tensor with those dimensions, and which of them lie here.
    """

    view: torch.Size
    sizes: tuple[int, ...]
    shard: Shard

    @property
    def here(self) -> torch.Size:
        """The shape of the units that lie here."""
        return torch.Size([some.stop - some.start for some in self.shard.box])

    def expand(self, keep: Tensor) -> Tensor:
        """Return every unit's answer for each entry of the piece, in the view's shape."""
        for dim, (size, length) in enumerate(zip(self.sizes, self.view, strict=True)):
            keep = keep.repeat_interleave(size, dim).narrow(dim, 0, length)
        return keep


def grid_of(shard: Shard, order: Sequence[int], view: Sequence[int], sizes: Sequence[int]) -> Grid | None:
    """Return which units lie in a piece; None where pieces may cut some. All ranks get None, or none does.

    Args:
        shard: the piece.
        order: in which the weight's dimensions are seen.
        view: the whole weight's shape as it is seen, some dimensions that follow each other as one.
        sizes: how many entries a unit takes along each dimension of the view.
    """
    steps = _steps(shard)
    axes = _axes([dim for dim in order if shard.shape[dim] != 1], shard.shape, view)
    if steps is None or axes is None:
        return None
    box: list[slice] = []
    for dims, length, size in zip(axes, view, sizes, strict=True):
        inner = torch.Size([shard.shape[dim] for dim in dims[1:]]).numel()
        if any(steps[dim] < shard.shape[dim] for dim in dims[1:]):
            return None
        if dims and steps[dims[0]] < shard.shape[dims[0]] and steps[dims[0]] * inner % size:
            return None
        part = shard.box[dims[0]] if dims else slice(0, length)
        box.append(slice(part.start * inner, part.stop * inner) if dims else part)
    if any(some.stop == some.start for some in shard.box):
        box = [slice(0, 0)] * len(box)
    units = tuple(slice(b.start // size, -(-b.stop // size)) for b, size in zip(box, sizes, strict=True))
    whole = torch.Size([-(-length // size) for length, size in zip(view, sizes, strict=True)])
    here = torch.Size([some.stop - some.start for some in box])
    return Grid(here, tuple(sizes), replace(shard, shape=whole, box=units))


def _steps(shard: Shard) -> list[int] | None:
    """Return of what every border between pieces is a multiple along each dimension; None where that is not known.

    It follows from shape, mesh and placements alone, and so is the same on all ranks.
    """
    from torch.distributed.tensor import Shard as Chunks

    spread, steps, seen = cast(Any, shard.tensor), list(shard.shape), set[int]()
    for number, placement in enumerate(spread.placements):
        ranks = spread.device_mesh.size(number)
        if placement.is_replicate() or ranks == 1:
            continue
        dim = getattr(placement, "dim", None)
        if dim is None:
            return None
        even = type(placement) is Chunks and dim not in seen
        steps[dim] = -(-shard.shape[dim] // ranks) if even else 1
        seen.add(dim)
    return steps


def _axes(dims: Sequence[int], shape: torch.Size, view: Sequence[int]) -> list[list[int]] | None:
    """Return which dimensions of a weight, none of them 1, each dimension of a view is made of."""
    rest, axes = list(dims), list[list[int]]()
    for length in view:
        axes.append([])
        while torch.Size([shape[dim] for dim in axes[-1]]).numel() < length:
            if not rest:
                return None
            axes[-1].append(rest.pop(0))
        if torch.Size([shape[dim] for dim in axes[-1]]).numel() != length:
            return None
    return None if rest else axes
