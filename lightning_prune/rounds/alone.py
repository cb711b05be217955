"""Layers of a model pruned once, without training, alone or together, and put back: what pruning each of them costs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from lightning_prune.criterion import ObservingCriterion, RememberingCriterion
from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.masks.places import Places
from lightning_prune.pattern import CoupledPattern, SitedPattern
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.chosen import Chosen
from lightning_prune.pruning.layout_check import check_layouts, in_need
from lightning_prune.pruning.unit_budget import nearest
from lightning_prune.pruning.unit_update import UnitUpdate, sliced
from lightning_prune.pruning.weight_update import Decision, WeightUpdate
from lightning_prune.rounds.best_units import named
from lightning_prune.schedule import OneShot
from lightning_prune.scope import Uniform
from lightning_prune.targets import Target, groups, plain_name


class Layers:
    """What a pruner prunes of a model, layer by layer: groups of units where its pattern couples them, else weights.

    Args:
        model: the model. It is as before once `pruned` is over.
        pruner: not attached. Its criterion, pattern, selection and targets are used, but for the targets' sparsities.

    Attributes:
        sizes: name of each layer, as a scope sees it -> how many weights, or units, it has.
        unit: "units", or "weights".
        step: how many of them go at a time.
        prunable: among how many weights zeros are counted.

    Raises:
        ValueError: the criterion looks at training, the pattern fixes every layer's sparsity, or there is nothing to
            prune.
    """

    def __init__(self, model: nn.Module, pruner: Pruner) -> None:
        _check(pruner)
        self._model, self._pruner = model, pruner
        pattern = pruner.pattern
        coupling = pattern.couple(model) if isinstance(pattern, CoupledPattern) else None
        chosen = Chosen(replace(pruner.targets, sparsity={}), coupling, model, None, self._in_need)
        self._masks = Masks(chosen.targets, False, model)
        self._masks.lead(chosen.followers)
        self._followers = tuple(chosen.followers)
        self._units: UnitUpdate | None = None
        self._members: dict[str, list[MaskedWeight]] = {}
        self.step, self.unit = 1, "weights"
        if chosen.units is not None and isinstance(pattern, CoupledPattern):
            order = {plain_name(name): place for place, (name, _) in enumerate(model.named_parameters())}
            members = sorted(chosen.units.groups, key=lambda group: order[group.name])
            self.step, self.unit = pattern.multiple, "units"
            counted = sliced(members, self._masks, chosen.counted)
            ways = (pruner.criterion, pattern, Uniform(), pruner.selection, False)
            self._units = UnitUpdate(OneShot(0.0, 0), members, self._masks, counted, *ways)
            self.sizes = {name: group.units for name, group in named(members).items()}
            self.prunable = self._units.size
        else:
            check_layouts(self._in_need(chosen.targets), chosen.unread)
            for _, by_name in groups(chosen.found):
                self._members |= {name: [self._masks[t.name] for t in found] for name, found in by_name.items()}
            self.sizes = {name: sum(w.size for w in found) for name, found in self._members.items()}
            self.prunable = sum(self.sizes.values())

    def zeros(self, gone: Sequence[int]) -> int:
        """Return how many weights are zero where each layer, in the order of `sizes`, has given up so many."""
        return sum(gone) if self._units is None else int(self._units.zeros(gone))

    def counts(self, share: float) -> list[int]:
        """Return how many of each layer go at a share of it: whole steps, and something stays."""
        return [
            max(0, min(round(share * size / self.step) * self.step, size - min(size, self.step)))
            for size in self.sizes.values()
        ]

    def alike(self, zeros: int) -> list[int]:
        """Return how many of each layer go if all give up the same share, and as nearly so many weights are zero."""
        return self.counts(nearest(lambda share: self.zeros(self.counts(share)), zeros, 0.1 / max(self.sizes.values())))

    @contextmanager
    def pruned(self, gone: Mapping[str, int]) -> Generator[dict[str, int], None, None]:
        """Have the model pruned, so many of these layers gone and the others as they are; give how many went of each.

        Whole blocks and rows come as near as they can. Afterwards every weight has its values again.
        """
        decisions, went = self._decided({name: count for name, count in gone.items() if count})
        following = [place.parameter for place in Places(self._model, self._followers).found.values()]
        weights = [decision.weight for decision in decisions]
        written = [*(weight.parameter for weight in weights), *(p for p in following if p is not None)]
        before = [parameter.detach().clone() for parameter in written]
        try:
            for decision in decisions:
                decision.weight.write(decision.mask, 0.0)
            self._masks.apply_to_followers()
            yield dict.fromkeys(gone, 0) | went
        finally:
            for weight in weights:
                weight.write(torch.ones_like(weight.mask), 0.0)
            with torch.no_grad():
                for parameter, was in zip(written, before, strict=True):
                    parameter.copy_(was)

    def release(self) -> None:
        """Take the masks off the model."""
        self._masks.hide()

    def _decided(self, gone: Mapping[str, int]) -> tuple[list[Decision], dict[str, int]]:
        """Return the masks of the layers that give something up, and how much each gives up in truth."""
        self._masks.follow()
        if self._units is not None:
            some = {name: group for name, group in named(self._units.groups).items() if name in gone}
            update = replace(self._units, groups=tuple(some.values()))
            keeps = update.best([group.units - gone[name] for name, group in some.items()], 0)
            return update.masks(keeps, [0.0] * len(keeps)), dict(gone)
        decisions: list[Decision] = []
        went: dict[str, int] = {}
        pruner, pattern = self._pruner, self._pruner.pattern
        assert not isinstance(pattern, CoupledPattern)
        for name, count in gone.items():
            schedule, members = OneShot(count / self.sizes[name], 0), {name: self._members[name]}
            ways = (pruner.criterion, pattern, Uniform(), pruner.selection, False)
            found = WeightUpdate(schedule, members, *ways).decide(0)
            went[name] = sum(int((~decision.mask).sum()) for decision in found)
            decisions += found
        return decisions, went

    def _in_need(self, targets: Sequence[Target]) -> Mapping[str, Sequence[Target]]:
        pattern = self._pruner.pattern
        if isinstance(pattern, CoupledPattern):  # the graph tells it
            return {}
        return in_need(targets, pattern, self._pruner.criterion, Uniform(), None)


def _check(pruner: Pruner) -> None:
    """Raise ValueError for what cannot be asked without training, or leaves a layer no choice."""
    criterion, pattern = pruner.criterion, pruner.pattern
    if isinstance(criterion, (ObservingCriterion, RememberingCriterion)):
        raise ValueError(
            f"criterion={criterion} looks at training, and nothing is trained here: take one of the weights alone, "
            "such as magnitude (--criterion magnitude)"
        )
    if not isinstance(pattern, (CoupledPattern, SitedPattern)) and pattern.least_sparsity:
        raise ValueError(
            f"pattern={pattern} leaves no layer a choice below a sparsity of {pattern.least_sparsity:g}: take another "
            "one, by a recipe (-cn RECIPE pruner/pattern=element)"
        )


@dataclass(frozen=True)
class Point:
    """One layer pruned alone.

    Attributes:
        share: what was asked for, of the layer.
        gone: how many of its weights, or units, were gone.
        metrics: what was measured then.
    """

    share: float
    gone: int
    metrics: Mapping[str, float]


def measured(
    layers: Layers, shares: Sequence[float], evaluate: Callable[[], Mapping[str, float]]
) -> dict[str, list[Point]]:
    """Return for each layer what is measured with it alone pruned, to each share that takes more than the one before.

    Args:
        layers: of the model that is measured.
        shares: in (0, 1), ascending.
        evaluate: measures the model as it is.
    """
    found: dict[str, list[Point]] = {name: [] for name in layers.sizes}
    for share in shares:
        for name, count in zip(layers.sizes, layers.counts(share), strict=True):
            points = found[name]
            with layers.pruned({name: count}) as went:
                if went[name] > (points[-1].gone if points else 0):
                    points.append(Point(share, went[name], dict(evaluate())))
    return found
