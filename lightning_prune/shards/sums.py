"""Numbers of pieces, added up over the ranks: one collective for all weights, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from lightning_prune.shards.shard import Group, Shard

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")
Kind = tuple[Group, ...]
"""The groups over which pieces add up; none for what lies whole on each rank."""

_ERROR = 1024
"""How many bytes of an error's text are sent."""


def kind(shard: Shard | None) -> Kind:
    """Return the groups over which pieces add up."""
    return () if shard is None else shard.groups


def kinds(shards: Iterable[Shard | None]) -> list[Kind]:
    """Return the different ones, in the order in which they come: the same on every rank."""
    return list(dict.fromkeys(kind(shard) for shard in shards))


def total(parts: Sequence[tuple[Kind, Tensor]]) -> Tensor:
    """Return the sum of integer tensors of one shape over ranks, on the CPU.

    Args:
        parts: with the groups over which each adds up, on the device where that can be done; written to.
    """
    for groups, part in parts:
        for group in groups:
            _reduce(part, group)
    found = [part.cpu().long() for _, part in parts]
    return found[0] if len(found) == 1 else torch.stack(found).sum(0)


def each(numbers: Sequence[int | Tensor], shards: Sequence[Shard | None]) -> list[int]:
    """Return a count of each weight, summed over its pieces.

    Args:
        numbers: of this rank's pieces; ints, or integer tensors of one element.
        shards: of each.
    """
    if all(shard is None for shard in shards):
        return [int(number) for number in numbers]
    found: dict[int, int] = {}
    for groups in kinds(shards):
        indices = [index for index, shard in enumerate(shards) if kind(shard) == groups]
        device = next((shard.device for shard in shards if shard is not None and shard.groups == groups), None)
        row = torch.stack([torch.as_tensor(numbers[index], device=device).reshape(()).long() for index in indices])
        for group in groups:
            _reduce(row, group)
        found |= dict(zip(indices, row.tolist(), strict=True))
    return [found[index] for index in range(len(shards))]


def sum_of(number: Tensor, shard: Shard) -> Tensor:
    """Return a 0-dim number of each piece, summed over the pieces."""
    number = number.to(shard.device, copy=True)
    for group in shard.groups:
        _reduce(number, group)
    return number


def total_of(numbers: Sequence[Tensor], shards: Sequence[Shard | None]) -> Tensor:
    """Return the sum of 0-dim float tensors of all weights, each summed over its pieces."""
    found: list[Tensor] = []
    for groups in kinds(shards):
        part = torch.stack([n for n, shard in zip(numbers, shards, strict=True) if kind(shard) == groups]).sum()
        for group in groups:
            _reduce(part, group)
        found.append(part)
    return torch.stack(found).sum()


def over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return float tensors summed over all ranks of this process's group, with one collective for each type of them.

    They are themselves where there is one process. All ranks call it with tensors of the same shapes.
    """
    import torch.distributed as dist

    if ranks()[1] == 1:
        return list(tensors)
    found = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        some = [index for index, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensors[index].reshape(-1) for index in some])
        dist.all_reduce(flat)
        parts = flat.split([tensors[index].numel() for index in some])
        for index, part in zip(some, parts, strict=True):
            found[index] = part.view(tensors[index].shape)
    return found


def ranks() -> tuple[int, int]:
    """Return this process's rank and how many there are."""
    import torch.distributed as dist

    there = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if there else (0, 1)


def highest(numbers: Sequence[int], shards: Sequence[Shard | None]) -> list[int]:
    """Return the largest of each number over all ranks that hold pieces of these weights."""
    groups = _groups(shards)
    if not groups or not numbers:
        return list(numbers)
    row = torch.tensor(list(numbers), device=_device(shards))
    for group in groups:
        _reduce(row, group, "MAX")
    return row.tolist()


def gathered(tensor: Tensor, shard: Shard | None) -> Tensor:
    """Return 1-d tensors of any lengths of a weight's pieces, joined, the same on every rank in order of the ranks."""
    if shard is None:
        return tensor
    import torch.distributed as dist

    for group in shard.groups:
        length = torch.tensor([tensor.numel()], device=shard.device)
        lengths = [torch.empty_like(length) for _ in range(dist.get_world_size(group))]
        dist.all_gather(lengths, length, group=group)
        longest = max(int(number) for number in lengths)
        if not longest:
            continue
        padded = torch.nn.functional.pad(tensor.to(shard.device), (0, longest - tensor.numel()))
        every = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(every, padded, group=group)
        tensor = torch.cat([some[: int(number)] for some, number in zip(every, lengths, strict=True)])
    return tensor


def wholes(pieces: Sequence[Tensor], shards: Sequence[Shard]) -> list[Tensor]:
    """Return the whole tensors of pieces, flattened, on every rank; one collective for those of one kind and dtype.

    Args:
        pieces: floats, or bool.
        shards: of each.
    """
    found = list(pieces)
    apart: dict[tuple[Kind, torch.dtype], list[int]] = {}
    for index, (piece, shard) in enumerate(zip(pieces, shards, strict=True)):
        apart.setdefault((shard.groups, piece.dtype), []).append(index)
    for (groups, dtype), some in apart.items():
        flat = torch.cat([_placed(pieces[index], shards[index]) for index in some])
        for group in groups:  # all but one are zeros: the sum is exact in any order
            _reduce(flat, group)
        parts = flat.to(dtype).split([shards[index].size for index in some])
        found = [dict(zip(some, parts, strict=True)).get(index, old) for index, old in enumerate(found)]
    return found


def _placed(piece: Tensor, shard: Shard) -> Tensor:
    """Return a piece at its place among zeros, flattened; of bool as bytes, which can be added."""
    dtype = torch.uint8 if piece.dtype == torch.bool else piece.dtype
    whole = torch.zeros(shard.shape, dtype=dtype, device=shard.device)
    shard.piece(whole).copy_(piece)
    return whole.flatten()


def first_error(error: Exception | None, shards: Sequence[Shard | None]) -> str | None:
    """Return the text of an error that a rank came to before it could do its part of a sum; None where none did.

    All ranks that hold pieces of the same weights call it, so that none is left waiting in the next collective.
    """
    said = _text(error).encode()[:_ERROR]
    if not highest([len(said)], shards)[0]:
        return None
    text = torch.frombuffer(bytearray(said.ljust(_ERROR, b"\0")), dtype=torch.uint8).to(_device(shards), torch.int32)
    for group in _groups(shards):  # those of several ranks need not be alike: one of them is taken
        text = _largest(text, group)
    return bytes(text.cpu().to(torch.uint8).tolist()).rstrip(b"\0").decode(errors="ignore")


def together(act: Callable[[], T], shards: Sequence[Shard | None]) -> T:
    """Do something with weights, and return what came of it. Where one rank fails at a piece, all do.

    Raises:
        ValueError: the text of what a rank came to; any error as it is, where no weight is taken apart.
    """
    if all(shard is None for shard in shards):
        return act()
    failure: Exception | None = None
    found: list[T] = []
    try:
        found.append(act())
    except Exception as error:  # the others would wait for this rank in their next sum
        failure = error
    said = first_error(failure, shards)
    if said is not None:
        raise ValueError(said) from failure
    return found[0]


def _text(error: Exception | None) -> str:
    """Return what an error says, never nothing; the empty string where there is none."""
    if error is None:
        return ""
    return (str(error) if isinstance(error, ValueError) else "") or repr(error)


def _groups(shards: Sequence[Shard | None]) -> list[Group]:
    return list(dict.fromkeys(group for shard in shards if shard is not None for group in shard.groups))


def _device(shards: Sequence[Shard | None]) -> torch.device:
    return next((shard.device for shard in shards if shard is not None), torch.device("cpu"))


def _largest(text: Tensor, group: Group) -> Tensor:
    import torch.distributed as dist

    every = [torch.empty_like(text) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, text, group=group)
    return max(every, key=lambda some: some.tolist())


def _reduce(tensor: Tensor, group: Group, operation: str = "SUM") -> None:
    import torch.distributed as dist

    dist.all_reduce(tensor, getattr(dist.ReduceOp, operation), group=group)
