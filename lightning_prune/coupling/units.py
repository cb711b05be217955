"""Units that live and die together: slices of many tensors that one mask serves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

Role = Literal["out", "in", "bias", "norm", "stat"]
"""What a slice does for its unit: compute it, read it, shift it, scale it, or hold a statistic of it (a buffer)."""

OUT: Role = "out"
IN: Role = "in"
BIAS: Role = "bias"
NORM: Role = "norm"
STAT: Role = "stat"


@dataclass(frozen=True)
class Part:
    """The entries of one tensor that belong to the units of a group.

    Attributes:
        name: dotted name of the parameter or buffer, the first where it is tied.
        dim: the dimension that the units slice.
        index: (units, n) positions along that dimension.
        role: what they do for the unit.
    """

    name: str
    dim: int
    index: Tensor = field(repr=False)
    role: Role


@dataclass(frozen=True)
class Count:
    """An int attribute of a module that falls by `each` with every unit that is removed, such as `num_heads`."""

    module: str
    attribute: str
    each: int


@dataclass(frozen=True)
class Group:
    """Units of one kind, each a slice of the same tensors.

    Attributes:
        name: the first weight that computes them.
        units: how many there are.
        parts: where they lie.
        counts: attributes of modules that count them.
    """

    name: str
    units: int
    parts: tuple[Part, ...]
    counts: tuple[Count, ...] = ()

    def of(self, *roles: Role) -> Iterator[Part]:
        """Iterate over the parts in these roles."""
        return (part for part in self.parts if part.role in roles)


@dataclass(frozen=True)
class Coupling:
    """The groups of a model whose units can be removed, and why other weights are not among them."""

    groups: tuple[Group, ...]
    refused: dict[str, str] = field(default_factory=dict[str, str])


def alive_along(groups: Iterable[Group], keeps: Iterable[Tensor], shapes: Mapping[str, torch.Size]) -> Alive:
    """Return for every tensor and dimension that units slice which positions stay.

    Args:
        groups: the groups.
        keeps: for each group a bool per unit.
        shapes: the shape by name of the tensors asked for.
    """
    alive: Alive = {}
    for group, keep in zip(groups, keeps, strict=True):
        for part in group.parts:
            if part.name not in shapes:
                continue
            along = alive.setdefault(part.name, {}).setdefault(
                part.dim, torch.ones(shapes[part.name][part.dim], dtype=torch.bool)
            )
            along[part.index[~keep.cpu()].flatten()] = False
    return alive


Alive = dict[str, dict[int, Tensor]]
"""Tensor name -> dimension -> bool per position."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by their first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def slices_of(tensor: Tensor, part: Part) -> Tensor:
    """Return what belongs to each unit, (units, entries)."""
    index = part.index.to(tensor.device, non_blocking=True)
    picked = tensor.index_select(part.dim, index.flatten()).movedim(part.dim, 0)
    return picked.reshape(index.shape[0], -1)
