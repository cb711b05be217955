"""A reconstruction in the place of a criterion: where it looks, what units are worth to it, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.coupling.units import Group
from lightning_prune.criterion import Magnitude, Site
from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning.asking import seen_of
from lightning_prune.pruning.observed import Observed, why_unseen
from lightning_prune.reconstruction import Reader, Reconstruction, UnitReconstruction
from lightning_prune.schedule import HoldingSchedule, ToldSchedule


def check_reconstruction(reconstruction: Any, schedule: Any, criterion: Any, pattern: Any) -> None:
    """Raise ValueError if it is none, or if another argument does not go with it."""
    if reconstruction is None:
        return
    if isinstance(reconstruction, type):
        raise ValueError(f"reconstruction={reconstruction.__name__} is a class: pass {reconstruction.__name__}(...)")
    said, of_units = f"reconstruction={reconstruction}", isinstance(reconstruction, UnitReconstruction)
    if not isinstance(reconstruction, Reconstruction) or not (of_units or callable(reconstruction)):
        raise ValueError(f"{said} is no reconstruction; see lightning_prune.reconstruction.Reconstruction")
    if criterion != Magnitude():
        raise ValueError(f"criterion={criterion} would not be asked: {said} says itself what stays; leave one out")
    if of_units and not isinstance(pattern, CoupledPattern):
        raise ValueError(
            f"{said} corrects the layers that read a unit, and pattern={pattern} knows of none: use pattern=Channel(), "
            "or SparseGPT() for patterns of weights"
        )
    if not of_units and isinstance(pattern, CoupledPattern):
        raise ValueError(
            f"{said} makes up for single weights within the outputs that they lead to, and pattern={pattern} takes "
            "whole outputs: use ReduceReuse(), Greedy() or Lasso(), or a pattern of weights such as Element()"
        )
    if getattr(pattern, "readers", False):
        raise ValueError(f"{said} scores units by what reads them as it is: leave out readers=True")
    if isinstance(schedule, ToldSchedule):
        raise ValueError(
            f"{said} looks at the steps before an update, and schedule={schedule} decides about one when a validation "
            "is over: use another schedule"
        )
    if isinstance(schedule, HoldingSchedule):
        raise ValueError(f"{said} makes up for what goes, and with schedule={schedule} nothing goes: leave one out")


def chooser(ideas: Any) -> Any:
    """Return what says which weights stay: the reconstruction, or the criterion where there is none."""
    return ideas.criterion if ideas.reconstruction is None else ideas.reconstruction


def reading(groups: Sequence[Group], weights: Mapping[str, MaskedWeight]) -> list[Observed]:
    """Return where a reconstruction of units looks: at every weight that reads units of the groups, once."""
    names = dict.fromkeys(part.name for group in groups for part in group.of("in"))
    return [Observed(weights[name], weights[name]) for name in names]


def worth_to(
    reconstruction: Any, group: Group, weights: Mapping[str, MaskedWeight], step: int, sparsity: float
) -> Tensor:
    """Return what the units of a group are worth to a reconstruction of units, in float64 on the CPU.

    Raises:
        ValueError: it gives anything but one float a unit; the message names the weight.
    """
    places: dict[str, list[Tensor]] = {}
    for part in group.of("in"):
        places.setdefault(part.name, []).append(part.index)
    readers = [
        Reader(name, seen_of(weights[name], reconstruction)[0], torch.cat(units, 1), weights[name].memory)
        for name, units in places.items()
    ]
    found: Tensor = reconstruction.at(Site(group.name, step, {}, sparsity)).worth(readers)
    if found.shape != (group.units,) or not found.is_floating_point():
        raise ValueError(
            f"{type(reconstruction).__name__} must give a float for each of the {group.units} units of "
            f"'{group.name}'; it gave {found.dtype} of shape {tuple(found.shape)}"
        )
    return found.detach().cpu().double()


def check_rebuilt(reconstruction: Any, groups: Sequence[Group], places: Sequence[Observed]) -> None:
    """Raise ValueError, which names the weights, if what they multiply cannot be seen, or they cannot be corrected.

    Args:
        reconstruction: of weights or of units.
        groups: the units; none where it is of weights.
        places: the weights that it looks at and corrects.
    """
    found = {place.weight.target.name: why for place in places if (why := _why_not(place.weight))}
    for group in groups:
        parts = list(group.of("in"))
        for part in parts:
            weight = next(place.weight for place in places if place.weight.target.name == part.name)
            layout = weight.target.layout
            if part.name not in found and (layout is None or layout.order[1] != part.dim):
                found[part.name] = "the units that it reads are no inputs of its layer"
        if not parts:
            found[group.name] = "no layer reads its units"
    if found:
        told = "; ".join(f"'{name}': {why}" for name, why in found.items())
        raise ValueError(
            f"reconstruction={reconstruction} cannot rebuild some of what it would ({told}): leave out "
            f"{'what computes the units that they read' if groups else 'those'} by Targets(exclude=...), or use a "
            "criterion without a reconstruction"
        )


def _why_not(weight: MaskedWeight) -> str | None:
    """Return why a weight cannot be rebuilt, None if it can."""
    target = weight.target
    if weight.shard is not None:
        return "it is taken apart over ranks"
    if len(target.names) > 1 or len(target.owners) > 1:
        return f"it is tied, and what it multiplies differs by place ({', '.join(target.names)})"
    return why_unseen(weight)
