"""What a model would be with so many of its weights gone: a smaller copy of it, without training."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_prune.coupling.couple import plain_copy
from lightning_prune.coupling.remove import remove
from lightning_prune.coupling.units import Group
from lightning_prune.masks import Masks
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.unit_update import UnitUpdate
from lightning_prune.rounds.best_units import units_of
from lightning_prune.schedule import OneShot
from lightning_prune.targets import targets_named


class OneShotTrial:
    """Smaller copies of a model, pruned by the criterion, scope, selection and targets of a pruner, all at once.

    Groups of units are found and proved once; the copies are then made by taking units out.

    Args:
        model: stays as it is.
        pruner: not attached. Its schedule gives way to the sparsities asked for here; those of `Targets(sparsity=...)`
            stay.

    Attributes:
        groups: how many groups of units there are that may lose some.
        multiple: of how many units each of them keeps a multiple, one multiple at least.
        skipped: name of every weight that stays whole -> why.

    Raises:
        ValueError: the pattern is of single weights, or there is nothing to take out; the message says why.
    """

    def __init__(self, model: nn.Module, pruner: Pruner) -> None:
        if not isinstance(pruner.pattern, CoupledPattern):
            raise ValueError(f"pattern={pruner.pattern} leaves no whole units to take out: use Channel()")
        self._model, self._pruner, self._pattern = model, pruner, pruner.pattern
        self._units = units_of(model, self._pattern, pruner.targets)
        self.groups = len(self._units.groups)
        self.multiple = self._pattern.multiple
        self.skipped = self._units.skipped

    def smaller(self, sparsity: float) -> nn.Module:
        """Return a copy without the units that go at a sparsity in [0, 1], as near to it as whole units allow."""
        copy = plain_copy(self._model)
        groups: list[Group] = []
        keeps: list[Tensor] = []
        masks = Masks(targets_named(copy, [target.name for target in self._units.targets]), reversible=False)
        try:
            for rule, members in self._units.rules.items():
                asked = sparsity if rule is None else self._pruner.targets.sparsity[rule]
                groups += members
                keeps += self._update(members, masks, asked).keep(0)[0]
        finally:
            masks.hide()
        remove(copy, groups, keeps)
        return copy

    def _update(self, members: tuple[Group, ...], masks: Masks, sparsity: float) -> UnitUpdate:
        pruner, sliced = self._pruner, {part.name for group in members for part in group.parts} & self._units.counted
        counted = [weight for name, weight in masks.items() if name in sliced]
        ways = (pruner.criterion, self._pattern, pruner.scope, pruner.selection, pruner.reversible)
        return UnitUpdate(OneShot(sparsity, 0), members, masks, counted, *ways)
