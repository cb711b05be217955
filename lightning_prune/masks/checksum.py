"""A number for each mask that tells masks apart, computed where they lie and read all together.

It is the sum over the kept entries of BASE ** (1 + p // 8) * 2 ** (p % 8) modulo 2 ** 64, where p is the entry's flat
position in its weight, and so the sum of the numbers of any parts of the mask. No two entries add the same: one that
moves is always seen, as are one more and one less. Masks that differ at random share their number with a probability of
about 2 ** -57; where whole rows and columns differ, some more bits are lost, a few for each doubling of their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lightning_prune.ranking import read
from lightning_prune.shards import Shard, each

BASE = 0x9E3779B97F4A7C15
"""It leaves 5 when divided by 8: its powers modulo 2 ** 57 repeat after 2 ** 55, so after 2 ** 58 entries. It is large:
those of 5 itself would have relations such as 5 * 5 = 5 + 4 * 5."""
_GATHER = 0x0102040810204080
"""Times eight bytes that are 0 or 1, it has them as the bits of its highest byte, the first lowest."""
_WORDS = 1 << 15
"""Words of eight entries handled at a time on the CPU: what is made of them stays in a core's cache."""
_WORDS_ON_DEVICE = 1 << 19


def checksums(masks: Iterable[Tensor], shards: Sequence[Shard | None] = ()) -> list[int]:
    """Return a number in [-2^63, 2^63) for each bool tensor; a device is waited for once.

    Args:
        masks: bool tensors of any shapes. Positions are those of the tensor flattened, whatever its strides.
        shards: of which wholes the masks are pieces; empty if none is. The numbers are then those of the wholes.
    """
    powers: dict[torch.device, Tensor] = {}
    if all(shard is None for shard in shards):
        return read([_checksum(mask, powers) for mask in masks])
    of = zip(masks, shards, strict=True)
    return each([_checksum(m, powers) if s is None else piece_of(m, s) for m, s in of], shards)


def piece_of(mask: Tensor, shard: Shard) -> Tensor:
    """Return what a piece adds to the number of the whole, run by run of entries that lie side by side in the whole."""
    total = torch.zeros((), dtype=torch.int64, device=mask.device)
    if not mask.numel():
        return total
    starts, length = shard.runs()
    runs = mask.detach().reshape(len(starts), length)
    for first in range(8):  # within a word of eight entries; a run of the next row may begin at another one
        among = (starts % 8 == first).nonzero().flatten()
        if not len(among):
            continue
        some = runs[among.to(mask.device, non_blocking=True)]
        some = torch.nn.functional.pad(some, (first, -(length + first) % 8)).contiguous().view(torch.int64)
        words = (some * _GATHER).bitwise_right_shift_(56).bitwise_and_(255)
        inside = torch.full((words.shape[1],), _signed(BASE), dtype=torch.int64, device=mask.device).cumprod(0)
        places = _powers(starts[among] // 8).to(mask.device, non_blocking=True)
        total += ((words * inside).sum(1) * places).sum()
    return total


def _powers(exponents: Tensor) -> Tensor:
    """Return BASE to those powers, modulo 2^64."""
    found, square = torch.ones_like(exponents), BASE
    for bit in range(int(exponents.max()).bit_length()):
        found = torch.where((exponents >> bit) & 1 == 1, found * _signed(square), found)
        square = pow(square, 2, 1 << 64)
    return found


def _checksum(mask: Tensor, powers: dict[torch.device, Tensor]) -> Tensor:
    table = powers.get(mask.device)
    if table is None:
        size = _WORDS if mask.device.type == "cpu" else _WORDS_ON_DEVICE
        table = powers[mask.device] = torch.full((size,), _signed(BASE), dtype=torch.int64, device=mask.device).cumprod(
            0
        )
    total: Tensor | None = None
    for at, words in _words(mask.detach().reshape(-1), len(table)):
        some = (words * _GATHER).bitwise_right_shift_(56).bitwise_and_(255).mul_(table[: len(words)]).sum()
        some = some * _signed(pow(BASE, at, 1 << 64)) if at else some
        total = some if total is None else total + some
    return torch.zeros((), dtype=torch.int64) if total is None else total


def _words(flat: Tensor, most: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the entries as integers of eight bytes, some at a time, and which of all the first is."""
    whole = flat.numel() // 8
    if flat.storage_offset() % 8:  # no view of eight bytes at once
        flat = flat.clone()
    for at in range(0, whole, most):
        yield at, flat[at * 8 : min(at + most, whole) * 8].view(torch.int64)
    if flat.numel() % 8:
        yield whole, torch.nn.functional.pad(flat[whole * 8 :], (0, 8 - flat.numel() % 8)).view(torch.int64)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
