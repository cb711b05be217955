"""The layers of a model that lose units: which they are, along which dimensions, and what a forward gives them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_prune.cost.macs import evaluation, unfused
from lightning_prune.coupling.example import call, tensors
from lightning_prune.coupling.units import BIAS, IN, STAT, Group


@dataclass(frozen=True)
class Axis:
    """A dimension of a weight.

    Attributes:
        dim: the dimension.
        groups: number of each group that slices it -> how many places a unit takes.
        computes: whether those are the units that the layer computes, or scales.
    """

    dim: int
    groups: Mapping[int, int]
    computes: bool


@dataclass(frozen=True)
class Place:
    """A layer that loses units.

    Attributes:
        module: its dotted name.
        weight: the name of the weight that says how wide it is.
        axes: along what: one or two dimensions, that of the units it computes first.
    """

    module: str
    weight: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Call:
    """What one call of a module takes, and how many values it gives."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    values: int


def places_of(model: nn.Module, groups: Sequence[Group]) -> list[Place]:
    """Return the layers that units slice, with one or two axes: what they compute first, then what they read."""
    sliced: dict[str, dict[int, dict[int, int]]] = {}
    reads: set[tuple[str, int]] = set()
    computes: set[tuple[str, int]] = set()
    for number, group in enumerate(groups):
        for part in group.parts:
            if part.role not in (BIAS, STAT):
                sliced.setdefault(part.name, {}).setdefault(part.dim, {})[number] = part.index.shape[1]
                (reads if part.role == IN else computes).add((part.name, part.dim))
    found: dict[str, Place] = {}
    dims_of = {name: parameter.dim() for name, parameter in model.named_parameters() if name in sliced}
    for name in sorted(dims_of, key=lambda name: dims_of[name] < 2):  # matrices first, else in the model's order
        module = name.rpartition(".")[0]
        axes = [Axis(dim, of, (name, dim) in computes) for dim, of in sorted(sliced[name].items())]
        axes = [axis for axis in axes if any(groups[number].units > 1 for number in axis.groups)]
        axes.sort(key=lambda axis: not axis.computes)
        # Where one group slices both dimensions, or shares one of them with others, they do not move apart.
        kept = axes[:1] + [axis for axis in axes[1:2] if not set(axis.groups) & set(axes[0].groups)]
        if kept and module not in found:
            found[module] = Place(module, name, tuple(kept))
    order = {name: place for place, (name, _) in enumerate(model.named_parameters())}
    return sorted(found.values(), key=lambda place: order[place.weight])


def calls_of(model: nn.Module, names: Collection[str], inputs: Any, kept: Collection[str]) -> dict[str, list[Call]]:
    """Return the calls that a forward makes of modules, by name; of those that are not kept without what they take."""
    found: dict[str, list[Call]] = {}

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            values = sum(tensor.numel() for tensor in tensors(output))
            found.setdefault(name, []).append(Call(args, kwargs, values) if name in kept else Call((), {}, values))

        return note

    modules = {name: module for name, module in model.named_modules() if name in names}
    hooks = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in modules.items()]
    try:
        with evaluation(model), torch.inference_mode(), unfused():
            call(model, inputs)
    finally:
        for each in hooks:
            each.remove()
    return found


def is_alone(name: str, called: Collection[str]) -> bool:
    """Return whether a module is called, and none inside of it is."""
    inner = f"{name}." if name else ""
    return name in called and not any(other != name and other.startswith(inner) for other in called)
