"""What a pruner composes, and what an update makes of it for the weights or units of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lightning_prune.budget import Budget, Price
from lightning_prune.criterion import Criterion, SitedCriterion
from lightning_prune.masks import Masks
from lightning_prune.pattern import CoupledPattern, Pattern, SitedPattern
from lightning_prune.pruning.chosen import Chosen
from lightning_prune.pruning.layout_check import check_layouts, in_need
from lightning_prune.pruning.unit_update import UnitUpdate, sliced
from lightning_prune.pruning.units_found import UnitsFound
from lightning_prune.pruning.weight_update import WeightUpdate
from lightning_prune.reconstruction import Reconstruction
from lightning_prune.regrowth import Regrowth
from lightning_prune.regularizer import Regularizer, SitedRegularizer
from lightning_prune.schedule import Schedule
from lightning_prune.scope import Scope
from lightning_prune.selection import Selection
from lightning_prune.targets import Target, Targets, groups


class Ideas(Protocol):
    """What a pruner composes."""

    schedule: Schedule
    criterion: Criterion | SitedCriterion
    pattern: Pattern | SitedPattern | CoupledPattern
    scope: Scope
    selection: Selection
    targets: Targets
    regularizer: Regularizer | SitedRegularizer | None
    reversible: bool
    budget: Budget
    units_found: UnitsFound | None
    reconstruction: Reconstruction | None
    regrowth: Regrowth | None


def updates_of(
    ideas: Ideas,
    criterion: Any,
    chosen: Chosen,
    masks: Masks,
    schedules: Mapping[str | None, Schedule],
    price: Price | None,
) -> list[WeightUpdate] | list[UnitUpdate]:
    """Return the update of what has no rule of its own, and one for each rule.

    Args:
        ideas: what the pruner composes.
        criterion: what chooses: that of the ideas, or their reconstruction.
        chosen: the weights, or groups of units.
        masks: of them.
        schedules: by rule, in whole steps.
        price: what the sparsity is a share of; None for the weights.

    Raises:
        ValueError: the regularizer needs norms, or weights are of an unknown layout where an idea needs one.
    """
    norms = chosen.units.norms if chosen.units is not None else ()
    if getattr(ideas.regularizer, "needs_norm", False) and not norms:
        raise ValueError(
            f"regularizer={ideas.regularizer} knows of no norm layer behind what is pruned: use it with "
            "pattern=Channel() on a model that has norms, or use another one"
        )
    if chosen.units is not None and isinstance(ideas.pattern, CoupledPattern):
        by_cost = getattr(ideas.budget, "by_cost", False)
        ways = (criterion, ideas.pattern, ideas.scope, ideas.selection, ideas.reversible, price, by_cost)
        return [
            UnitUpdate(schedules[rule], members, masks, sliced(members, masks, chosen.counted), *ways)
            for rule, members in chosen.units.rules.items()
        ]
    assert not isinstance(ideas.pattern, CoupledPattern)
    check_layouts(needing(ideas, criterion, chosen.targets), chosen.unread)
    return [
        WeightUpdate(
            schedules[rule],
            {name: [masks[target.name] for target in members] for name, members in by_group.items()},
            criterion,
            ideas.pattern,
            ideas.scope,
            ideas.selection,
            ideas.reversible,
        )
        for rule, by_group in groups(chosen.found)
    ]


def needing(ideas: Ideas, criterion: Any, targets: Sequence[Target]) -> Mapping[str, Sequence[Target]]:
    """Return, by what asks for it, the targets whose layout must be known; for units the graph tells it."""
    if isinstance(ideas.pattern, CoupledPattern):
        return {}
    return in_need(targets, ideas.pattern, criterion, ideas.scope, ideas.regularizer)
