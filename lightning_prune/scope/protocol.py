"""What a scope must answer, the layers it is shown, and the pools that it makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Layer:
    """One prunable weight as a scope sees it: name, shape, size, and how many of its entries are gone for good.

    The shape is outputs, inputs, kernel; of a stack of experts, whose size counts them all, it is that of one.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    pruned: int


@dataclass(frozen=True)
class Pool:
    """Weights that compete with each other, and how many of their entries must be zero afterwards.

    Attributes:
        names: the layers.
        drop: how many entries of theirs are zero afterwards.
        sparsity: the share of zeros asked for.
        least: how many entries each of them keeps at least, together no more than `drop` leaves; empty for no floor.
    """

    names: tuple[str, ...]
    drop: int
    sparsity: float
    least: tuple[int, ...] = ()


class Scope(Protocol):
    """Who competes with whom, and how many each may keep."""

    def __call__(self, layers: Sequence[Layer], sparsity: float) -> Sequence[Pool]:
        """Return disjoint pools that cover all layers."""
        ...
