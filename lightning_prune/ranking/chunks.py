"""Many tensors in chunks: large ones cut, small ones put together, so that work comes in pieces of one size."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 1 << 22
"""Entries of a chunk, at most: enough to keep a device busy, and few beside a model."""
_LEAST = 1 << 17
"""Entries up to which a chunk is not made smaller: beneath, a device waits for the host."""
_CHUNKS = 16
"""So many, where the tensors are not too large for it: a chunk takes little room beside them."""


@dataclass(frozen=True)
class Piece:
    """The entries from `start` to `end` of the tensor of that index, flattened."""

    index: int
    start: int
    end: int


Chunk = Sequence[Piece]


def chunks_of(tensors: Sequence[Tensor], apart: Sequence[Hashable] = ()) -> list[Chunk]:
    """Return all entries of the tensors in chunks, in order; a chunk lies on one device.

    Args:
        tensors: of any sizes.
        apart: of each tensor, what those in one chunk must have in common.
    """
    size = _size(sum(t.numel() for t in tensors))
    chunks: list[list[Piece]] = []
    room, before = 0, None
    for index, tensor in enumerate(tensors):
        common = (tensor.device, apart[index] if apart else None)
        for piece in _cut(index, tensor, size):
            length = piece.end - piece.start
            if length > 2 * room or common != before:  # as near to the size as whole pieces come
                chunks.append([])
                room, before = size, common
            chunks[-1].append(piece)
            room -= length
    return list(chunks)


def by_rows(*tensors: Tensor, size: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same rows of tensors of one shape, a chunk at a time: views, so that they may be written to.

    Args:
        tensors: of that shape.
        size: about how many entries a chunk is to have; None for as many as suit tensors so large.
    """
    first = tensors[0]
    if not first.dim():
        yield tensors
        return
    rows = max(1, (size or _size(first.numel())) * first.shape[0] // max(1, first.numel()))
    yield from zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _size(total: int) -> int:
    return min(MOST, max(_LEAST, total // _CHUNKS))


def _cut(index: int, tensor: Tensor, size: int) -> list[Piece]:
    total = tensor.numel()
    if not tensor.is_contiguous():  # of whole rows, as a flat view there is none
        width = total // max(1, tensor.shape[0])
        size = max(1, size // max(1, width)) * width
    return [Piece(index, start, min(total, start + size)) for start in range(0, total, size)]


def take(tensors: Sequence[Tensor], chunk: Chunk) -> Tensor:
    """Return the entries of a chunk, flat: a view where it is one piece of a contiguous tensor."""
    parts = [flat(tensors[piece.index], piece) for piece in chunk]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def flat(tensor: Tensor, piece: Piece) -> Tensor:
    """Return a piece of a tensor, flat: a view where the tensor is contiguous."""
    if tensor.is_contiguous():
        return tensor.view(-1)[piece.start : piece.end]
    width = tensor.numel() // tensor.shape[0]
    if piece.start % width or piece.end % width:  # cut for another tensor's sake
        return tensor.reshape(-1)[piece.start : piece.end]
    return tensor[piece.start // width : piece.end // width].reshape(-1)


def put(flags: Tensor, tensors: Sequence[Tensor], chunk: Chunk) -> None:
    """Write flat flags to the places of a chunk in contiguous tensors."""
    for piece, part in zip(chunk, flags.split([piece.end - piece.start for piece in chunk]), strict=True):
        tensors[piece.index].view(-1)[piece.start : piece.end] = part
