"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Site, itself

_LOW = (1 << 32) - 1
_MULTIPLIERS = (0x7FEB352D, 0x297A2D39, 0x45D9F3B, 0x2C1B3C6D)
"""Odd and below 2^31: times 32 bits they stay below 2^63, so that nothing overflows. From searches for good hashes."""
_CHUNK = 1 << 15
"""Scores made at a time on the CPU: what they are made of stays in a core's cache."""
_ON_DEVICE = (1 << 17, 1 << 20)
"""At least and at most so many on a device: a sixteenth, so that they take little room beside the scores."""


@dataclass(frozen=True)
class Random:
    """Score weights at random, uniformly in [0, 1), from (seed, step, name) and an entry's position alone.

    The same on every rank, device and in every process, and of any piece of a weight; torch's generators are neither
    read nor moved. Scores are multiples of 2 ** -24: two are equal with a probability of 2 ** -24, and of those at the
    boundary the first stay.

    Args:
        seed: any int.
        step: the update step, set by the pruner.
        name: the weight's name, set by the pruner.
        place: from positions in what is handed over to those in the whole weight, set by the pruner.
    """

    seed: int = 0
    step: int = 0
    name: str = ""
    place: Callable[[Tensor], Tensor] = field(default=itself, repr=False)

    of_entries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.whole("seed", self.seed)

    def at(self, site: Site) -> Random:
        """Return the criterion for that weight at that step."""
        return replace(self, step=site.step, name=site.name, place=site.place)

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return random scores in float32: those of the positions 0, 1, 2, ... of the whole weight, or of a piece."""
        scores = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
        flat, keys = scores.view(-1), self._keys
        size = _CHUNK
        if weight.device.type != "cpu":
            size = min(max(1 << (flat.numel() // 32).bit_length(), _ON_DEVICE[0]), _ON_DEVICE[1])
        for start in range(0, flat.numel(), size):  # a power of two: none goes across a multiple of 2 ** 32
            part = flat[start : start + size]
            if self.place is not itself:
                part.copy_(self.of(self.place(torch.arange(start, start + part.numel(), device=weight.device))))
                continue
            low = torch.arange(start & _LOW, (start & _LOW) + part.numel(), device=weight.device)
            part.copy_(_mixed(low, start >> 32, keys)).mul_(2.0**-24)
        return scores

    def of(self, positions: Tensor) -> Tensor:
        """Return the scores of entries, float32 in the shape of `positions`.

        Args:
            positions: int64, of at least 0: where entries lie in the whole weight, flattened with its outputs first.
        """
        return _mixed(positions & _LOW, positions >> 32, self._keys).float().mul_(2.0**-24)

    @property
    def _keys(self) -> tuple[int, int, int]:
        digest = hashlib.sha256(f"{self.seed}/{self.step}/{self.name}".encode()).digest()
        one, two, three = (int.from_bytes(digest[at : at + 4], "big") for at in (0, 4, 8))
        return one, two, three


def _mixed(low: Tensor, high: Tensor | int, keys: tuple[int, int, int]) -> Tensor:
    """Return 24 bits that follow from a position's 64, in the memory of `low`: three rounds, with a key before each."""
    first, second, third, spread = _MULTIPLIERS
    between = ((high * spread) & _LOW) ^ keys[1]
    low ^= keys[0]
    low ^= low >> 16
    low.mul_(first).bitwise_and_(_LOW)
    low ^= between
    low ^= low >> 15
    low.mul_(second).bitwise_and_(_LOW)
    low ^= keys[2]
    low ^= low >> 16
    return low.mul_(third).bitwise_and_(_LOW).bitwise_right_shift_(8)
