"""Zero all but so many units of each group: counts given directly, in place of a schedule and a budget."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from torch import nn

from lightning_prune.coupling.units import Group
from lightning_prune.criterion import Criterion, SitedCriterion
from lightning_prune.masks import Masks
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning.unit_targets import UnitTargets
from lightning_prune.pruning.unit_update import UnitUpdate
from lightning_prune.schedule import OneShot
from lightning_prune.scope import GlobalRanking
from lightning_prune.selection import Exact


class Named(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def named(groups: Sequence[T]) -> dict[str, T]:
    """Return the groups by name; the second of a name is `name (2)`."""
    found: dict[str, T] = {}
    seen: dict[str, int] = {}
    for group in groups:
        seen[group.name] = number = seen.get(group.name, 0) + 1
        found[group.name if number == 1 else f"{group.name} ({number})"] = group
    return found


def choose(model: nn.Module, groups: Sequence[Group], layers: Sequence[str | int] = ()) -> dict[str, Group]:
    """Return groups by name, in the model's order.

    Args:
        model: the model.
        groups: all of its groups.
        layers: regexes searched in the names of the weights that compute a group, or positions; empty for all.

    Raises:
        ValueError: one of them means no group; the message lists near matches.
    """
    order = {name: i for i, (name, _) in enumerate(model.named_parameters())}
    found = dict(sorted(named(groups).items(), key=lambda item: order[item[1].name]))
    if not layers:
        return found
    names = [[part.name for part in group.of("out")] for group in found.values()]
    wanted: set[int] = set()
    for layer in layers:
        if isinstance(layer, int):
            meant = {layer % len(found)} if -len(found) <= layer < len(found) else set[int]()
        else:
            meant = {i for i, these in enumerate(names) if any(re.search(layer, name) for name in these)}
        if not meant:
            raise ValueError(f"layers has {layer!r}, which is no group of units; {_near(layer, names)}")
        wanted |= meant
    return {name: group for i, (name, group) in enumerate(found.items()) if i in wanted}


def _near(layer: str | int, names: Sequence[Sequence[str]]) -> str:
    """Return what a layer could have been called."""
    if isinstance(layer, int):
        return f"there are {len(names)}, from 0 to {len(names) - 1}"
    every = [name for these in names for name in these]
    near = difflib.get_close_matches(layer, every, cutoff=0.3) or every[:3]
    return f"near matches: {', '.join(near)}"


def keep_best(
    model: nn.Module,
    units: UnitTargets,
    numbers: Mapping[str, int],
    criterion: Criterion | SitedCriterion,
    pattern: CoupledPattern,
    step: int = 0,
) -> None:
    """Zero, in place, all but the best units of each group: all that computes, shifts, scales or reads the others.

    Args:
        model: the model.
        units: its groups, from `units_of`.
        numbers: group -> how many units it keeps; others keep all.
        criterion: what a weight is worth; of units that are worth the same, the first ones stay.
        pattern: the one that found the groups.
        step: what the criterion is told, for one that draws at random.

    Raises:
        ValueError: a score is not finite; the message names the weight, and nothing is changed.
    """
    masks = Masks(units.targets, reversible=False)
    try:
        update = UnitUpdate(
            OneShot(0.0, 0),
            units.groups,
            masks,
            [masks[name] for name in masks if name in units.counted],
            criterion,
            pattern,
            GlobalRanking(),
            Exact(),
            False,
        )
        keeps = update.best([numbers.get(n, g.units) for n, g in named(units.groups).items()], step)
        for decision in update.masks(keeps, [0.0] * len(keeps)):
            decision.weight.write(decision.mask, decision.threshold)
    finally:
        masks.hide()
