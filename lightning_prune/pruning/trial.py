"""What a model would be with so many of its weights gone: a smaller copy, pruned along a schedule without training."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_prune.budget import Budget
from lightning_prune.coupling.couple import plain_copy
from lightning_prune.coupling.remove import remove
from lightning_prune.coupling.units import Group
from lightning_prune.masks import Masks
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning.ideas import Ideas
from lightning_prune.pruning.unit_cost import UnitCost
from lightning_prune.pruning.unit_targets import UnitTargets, units_of
from lightning_prune.pruning.unit_update import UnitUpdate, sliced
from lightning_prune.schedule import OneShot, Schedule
from lightning_prune.targets import plain_name, targets_named

_LENGTH, _UPDATES = 100_000, 16


class Trial:
    """Smaller copies of a model, pruned by the ideas of a pruner without training.

    Groups of units are found and proved once; the copies are then made by taking units out. They lose them in as many
    updates as the schedule makes, up to a few: units that stay are worth more in a group that has lost some, so which
    ones go in the end depends on the way there.

    Args:
        model: stays as it is.
        pruner: not attached. The final sparsity of its schedule gives way to those asked for here; those of
            `Targets(sparsity=...)` stay.
        budget: what the sparsity is a share of; None for that of the pruner.
        units: those of the model that may be pruned; None for all that the pruner's targets allow.

    Attributes:
        groups: how many groups of units there are that may lose some.
        multiple: of how many units each of them keeps a multiple, one multiple at least.
        skipped: name of every weight of two dimensions or more that stays whole -> why.

    Raises:
        ValueError: the pattern is of single weights, or there is nothing to take out; the message says why.
    """

    def __init__(
        self, model: nn.Module, pruner: Ideas, budget: Budget | None = None, units: UnitTargets | None = None
    ) -> None:
        if not isinstance(pruner.pattern, CoupledPattern):
            raise ValueError(f"pattern={pruner.pattern} leaves no whole units to take out: use Channel()")
        self._model, self._pruner, self._pattern = model, pruner, pruner.pattern
        self._units = units_of(model, self._pattern, pruner.targets) if units is None else units
        self._budget = pruner.budget if budget is None else budget
        shapes = {plain_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}
        named = {target.name: shapes[plain_name(target.name)] for target in self._units.targets}
        self._price = self._budget.price(model, self._pattern.example_inputs, named)
        self._way = _way(pruner.schedule)
        self.groups = len(self._units.groups)
        self.multiple = self._pattern.multiple
        matrices = {plain_name(name) for name, parameter in model.named_parameters() if parameter.dim() > 1}
        self.skipped = {name: why for name, why in self._units.skipped.items() if name in matrices}

    def smaller(self, sparsity: float) -> nn.Module:
        """Return a copy without the units that go at a sparsity in [0, 1], as near to it as whole units allow."""
        copy = plain_copy(self._model)
        remove(copy, *self._kept_in(copy, sparsity))
        return copy

    def gone(self, sparsity: float) -> tuple[float, float]:
        """Return what goes at a sparsity: the share of what it is a share of, and that of the units."""
        copy = plain_copy(self._model)
        masks = Masks(targets_named(copy, [target.name for target in self._units.targets]), reversible=False)
        masks.hide()
        groups, keeps = self._kept_in(copy, sparsity)
        gone = [int((~keep).sum()) for keep in keeps]
        cost = UnitCost(groups, masks, sliced(groups, masks, self._units.counted), self._price)
        return cost.saved(gone) / cost.total, sum(gone) / sum(group.units for group in groups)

    def _kept_in(self, copy: nn.Module, sparsity: float) -> tuple[list[Group], list[Tensor]]:
        """Return the groups and which of their units stay; in the copy zeros take the place of the others."""
        groups: list[Group] = []
        keeps: list[Tensor] = []
        masks = Masks(targets_named(copy, [target.name for target in self._units.targets]), reversible=False)
        try:
            for rule, members in self._units.rules.items():
                asked = sparsity if rule is None else self._pruner.targets.sparsity[rule]
                groups += members
                keeps += self._kept(members, masks, asked)
        finally:
            masks.hide()
        return groups, keeps

    def _kept(self, members: tuple[Group, ...], masks: Masks, sparsity: float) -> list[Tensor]:
        keeps: list[Tensor] = []
        for number, share in enumerate(self._way):
            update = self._update(members, masks, share * sparsity)
            keeps, thresholds = update.keep(number)
            for decision in update.masks(keeps, thresholds):
                decision.weight.write(decision.mask, decision.threshold)
        return keeps

    def _update(self, members: tuple[Group, ...], masks: Masks, sparsity: float) -> UnitUpdate:
        pruner, counted = self._pruner, sliced(members, masks, self._units.counted)
        ways = (pruner.criterion, self._pattern, pruner.scope, pruner.selection, pruner.reversible)
        by_cost = getattr(self._budget, "by_cost", False)
        return UnitUpdate(OneShot(sparsity, 0), members, masks, counted, *ways, self._price, by_cost)


def _way(schedule: Schedule) -> tuple[float, ...]:
    """Return the sparsities of some of a schedule's updates, as shares of the last one, which is 1."""
    try:
        resolved = schedule.resolve(_LENGTH)
    except ValueError:  # steps and shares of a run whose length is not known here
        return (1.0,)
    first, last = float(resolved.begin_step), float(resolved.end_step)
    steps = [round(first + (last - first) * i / (_UPDATES - 1)) for i in range(_UPDATES)]
    asked = {resolved.sparsity(step) / resolved.final_sparsity for step in steps if resolved.final_sparsity}
    return (*sorted(share for share in asked if 0.0 < share < 1.0), 1.0)
