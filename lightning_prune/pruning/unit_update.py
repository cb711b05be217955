"""One update of the masks of coupled units: scores of units, counts, masks of all the tensors they slice."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_prune.budget import Price
from lightning_prune.coupling.units import Group, Part, Role, alive_along, slices_of
from lightning_prune.criterion import Criterion, SitedCriterion
from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning.asking import gathers, remember, scores_of
from lightning_prune.pruning.hosted import hosted
from lightning_prune.pruning.observed import Observed, readers, worth_of
from lightning_prune.pruning.reconstructing import reading, worth_to
from lightning_prune.pruning.turns import Turns, check_apart
from lightning_prune.pruning.unit_budget import UnitBudget, nearest
from lightning_prune.pruning.unit_cost import UnitCost
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.ranking import on_host, where_float64_is
from lightning_prune.reconstruction import UnitReconstruction
from lightning_prune.report import Spent
from lightning_prune.schedule import Schedule, TurnSchedule
from lightning_prune.scope import Layer, Scope
from lightning_prune.selection import Selection, Units
from lightning_prune.shards import together, whole


def sliced(groups: Sequence[Group], masks: Masks, counted: Collection[str]) -> list[MaskedWeight]:
    """Return the weights that groups of units slice, of those that are counted, in the model's order."""
    parts = {part.name for group in groups for part in group.parts} & set(counted)
    return [weight for name, weight in masks.items() if name in parts]


@dataclass(frozen=True)
class UnitUpdate:
    """Groups of units that share a schedule, and the ideas by which they are pruned.

    The scope and the selection see each group as a layer whose units are rows. Removing a unit also removes the columns
    that read it, so a share r of the rows is searched at which the share of zeros among the weights is nearest to what
    the schedule asks for.

    Attributes:
        schedule: in whole steps.
        groups: the units.
        weights: every tensor that units slice, by name.
        counted: the weights among which zeros are counted.
        criterion: what a weight is worth; a unit is worth the sum over its weights of their mean.
        pattern: rounds the number of units that each group keeps, and says which weights those are.
        scope: which groups compete, and how many rows each may keep.
        selection: from scores and counts to units.
        reversible: pruned units compete again.
        price: what the sparsity is a share of; None for the weights that are counted.
        by_cost: units are ranked by what they are worth for what they cost.
        turns: where groups are pruned one after the other, the number of each one's turn; None where all are together.
    """

    schedule: Schedule
    groups: Sequence[Group]
    weights: Mapping[str, MaskedWeight]
    counted: Sequence[MaskedWeight]
    criterion: Criterion | SitedCriterion
    pattern: CoupledPattern
    scope: Scope
    selection: Selection
    reversible: bool
    price: Price | None = None
    by_cost: bool = False
    turns: Turns | None = None

    @property
    def size(self) -> int:
        """How many weights are counted."""
        return sum(weight.size for weight in self.counted)

    @property
    def grain(self) -> int:
        """How many counted weights the largest step of a group holds: the budget is met no nearer than that."""
        return self.pattern.multiple * max(self._cost.weights_per_unit())

    @property
    def most(self) -> int:
        """How many counted weights are zero where every group keeps as few units as it may."""
        return self.zeros([group.units - min(group.units, self.pattern.multiple) for group in self.groups])

    @cached_property
    def _cost(self) -> UnitCost:
        return UnitCost(self.groups, self.weights, self.counted, self.price)

    def zeros(self, gone: Sequence[Any]) -> Any:
        """Return how many counted weights are zero where so many units of each group are gone: numbers or tensors."""
        return self._cost.zeros(gone)

    def spent(self) -> Spent | None:
        """Return what is paid now and was asked for in the end; None where weights are counted."""
        if self.price is None:
            return None
        gone = [int((~alive).sum()) for alive in self.alive()]
        return self._cost.spent(gone, self.schedule.final_sparsity, self.pattern.multiple)

    def likely(self, sparsity: float) -> float:
        """Return the share of zeros among the counted weights where each group gives up alike: the plan's figure."""
        return sparsity if self.price is None else self._cost.likely(sparsity)

    def decide(self, step: int) -> list[Decision]:
        """Return the masks for the update at `step`. Writes to no weight and no mask.

        Raises:
            ValueError: a score is not finite or has another shape than its weight; the message names the weight.
        """
        return self.masks(*self.keep(step))

    def remember(self, step: int) -> None:
        """Have the criterion remember the weights, now that the update at `step` is certain and nothing is written."""
        for name in self._scored:
            remember(self.criterion, self.weights[name], step)

    def keep(self, step: int) -> tuple[list[Tensor], list[float]]:
        """Return which units of each group stay at `step`, and the thresholds. Raises what `decide` raises."""
        units = [group.units for group in self.groups]
        share = nearest(lambda r: self._cost.saved([r * n for n in units]), self._goal(step), 1e-9)
        return self.choose(step, self._scores(self.alive(), step, share))

    def choose(self, step: int, worth: Sequence[Tensor]) -> tuple[list[Tensor], list[float]]:
        """Return which units of each group stay at `step` if they are worth so much, and the thresholds."""
        alive = self.alive()
        budget = self._budget(worth, alive)
        if self.turns is None or not isinstance(self.schedule, TurnSchedule):
            return budget.keeps(self._share(budget, step))
        keeps, thresholds = budget.keeps(self._share(self._dense(), step))
        done, before = self.schedule.turns(step), [units.threshold for units in budget.units]
        come = [self.turns[layer.name] < done for layer in budget.layers]
        return (
            [keep if now else old for keep, old, now in zip(keeps, alive, come, strict=True)],
            [threshold if now else old for threshold, old, now in zip(thresholds, before, come, strict=True)],
        )

    def _dense(self) -> UnitBudget:
        """Return the budget of groups that have all their units: how many go follows from that, not from worth."""
        whole = [torch.ones(group.units, dtype=torch.bool) for group in self.groups]
        return self._budget([torch.arange(group.units).float() for group in self.groups], whole)

    def _share(self, budget: UnitBudget, step: int) -> float:
        """Return the share of the rows at which what is gone is nearest to what is asked for."""
        rows = sum(layer.size for layer in budget.layers)
        return nearest(lambda r: self._cost.saved(budget.gone(r)), self._goal(step), 0.5 / rows)

    def _goal(self, step: int) -> float:
        asked = self.schedule.sparsity(step) if self.turns is None else self.schedule.final_sparsity
        return asked * self._cost.total

    def by_layer(self) -> list[tuple[str, str, float]]:
        """Return by group its name, that of its first weight, and how much its turn takes of what is asked for.

        Raises:
            ValueError: groups are ranked together.
        """
        budget = self._dense()
        check_apart(self.scope(budget.layers, self.schedule.final_sparsity), self.scope, self.schedule)
        gone = budget.gone(self._share(budget, int(self.schedule.end_step)))
        order = sorted(range(len(gone)), key=lambda n: list(self.weights).index(self.groups[n].name))
        behind = [[number * (n in order[:turns]) for n, number in enumerate(gone)] for turns in range(len(gone) + 1)]
        saved = [float(self._cost.saved(numbers)) for numbers in behind]
        named = [(budget.layers[n].name, self.groups[n].name) for n in order]
        return [(*names, after - before) for names, (before, after) in zip(named, pairwise(saved), strict=True)]

    def best(self, numbers: Sequence[int], step: int) -> list[Tensor]:
        """Return for each group which units to keep: so many, the best of them, and of equals the first.

        Criteria are told the share of its units that the group at hand gives up, whatever the schedule says.
        """
        keeps: list[Tensor] = []
        for group, number, alive in zip(self.groups, numbers, self.alive(), strict=True):
            alone = replace(self, groups=(group,))
            (scores,) = alone._scores([alive], step, 1.0 - number / group.units)
            first = scores.masked_fill(~alive, -math.inf).argsort(descending=True, stable=True)[:number]
            keeps.append(torch.zeros(group.units, dtype=torch.bool).index_fill_(0, first, True))
        return keeps

    def masks(self, keeps: Sequence[Tensor], thresholds: Sequence[float]) -> list[Decision]:
        """Return the masks of all tensors for the units kept; a weight's threshold is that of the units it computes."""
        along = alive_along(self.groups, keeps, {name: w.shape for name, w in self.weights.items()})
        ranked = list(zip(self.groups, thresholds, strict=True))
        reading = {part.name: threshold for group, threshold in ranked for part in group.of("in")}
        others = {part.name: threshold for group, threshold in ranked for part in group.parts if part.role != "in"}
        of = reading | others
        made = [
            Decision(weight, _mask(along[name], weight), of[name])
            for name, weight in self.weights.items()
            if name in along
        ]
        if self.turns is None:
            return made
        same = [torch.equal(d.mask, d.weight.mask) for d in made]  # a mask that stays is corrected by nobody
        return [replace(d, mask=d.weight.mask) if stays else d for d, stays in zip(made, same, strict=True)]

    def from_zeros(self) -> list[Decision]:
        """Return the masks that the zeros of a stripped model show: a unit is gone where nothing is left of it."""
        left = {name: whole(w.values.detach() != 0, w.shard) for name, w in self.weights.items()}
        parts = [[part for part in group.parts if part.name in left] for group in self.groups]
        along = iter(on_host([_any_along(left[part.name], part) for some in parts for part in some]))
        keeps = [torch.stack([next(along)[part.index].any(1) for part in some]).any(0) for some in parts]
        return self.masks(keeps, [0.0] * len(self.groups))

    def places(self) -> list[Observed]:
        """Return where a criterion looks at training: at the weights that are scored, or where units are read."""
        if isinstance(self.criterion, UnitReconstruction):
            return reading(self.groups, self.weights)
        if not self._of_units:
            return [Observed(self.weights[name], self.weights[name]) for name in self._scored]
        return [place for number in range(len(self.groups)) for place in self._readers(number)]

    @property
    def _of_units(self) -> bool:
        """Whether units are scored where they are read, not the weights that compute them."""
        seen = getattr(self.criterion, "observes", None) in ("activation", "saliency")
        return seen or isinstance(self.criterion, UnitReconstruction)

    def _worth(self, number: int, step: int, share: float) -> Tensor:
        if isinstance(self.criterion, UnitReconstruction):
            return worth_to(self.criterion, self.groups[number], self.weights, step, share)
        return worth_of(self.criterion, self._readers(number), step, share)

    def _readers(self, number: int) -> list[Observed]:
        group = self.groups[number]
        first = next(part for part in group.of("out") if part.name in self.weights)
        return readers(self.weights, number, first, group.of("in"))

    def check_pattern(self) -> None:
        """Raise ValueError if the criterion lacks norms, or the scope names groups that there are none of."""
        self.scope(self._layers([torch.ones(group.units, dtype=torch.bool) for group in self.groups]), 0.0)
        for group in self.groups if getattr(self.criterion, "needs_norm", False) else ():
            if not any(group.of("norm")):
                raise ValueError(
                    f"{self.criterion} knows of no norm layer behind '{group.name}': leave it out by "
                    "Targets(exclude=...), or use another criterion"
                )

    def final_sparsities(self) -> dict[str, float]:
        """Return nothing: how sparse one weight becomes depends on the units on both its sides."""
        return {}

    def asked(self) -> dict[str, float]:
        """Return the final sparsity of all counted weights, for each of them."""
        return {weight.target.name: self.schedule.final_sparsity for weight in self.counted}

    def alive(self) -> list[Tensor]:
        """Return which units of each group are alive: one look at the device for all."""
        parts = [next(p for p in group.of("out") if p.name in self.weights) for group in self.groups]
        masks = ((self.weights[part.name], part) for part in parts)
        along = on_host([_any_along(whole(weight.mask, weight.shard), part) for weight, part in masks])
        return [flags[part.index].any(1) for flags, part in zip(along, parts, strict=True)]

    def _scores(self, alive: Sequence[Tensor], step: int, share: float) -> list[Tensor]:
        """Return every unit's worth: the sum, over the weights that make it up, of the mean score of its entries."""
        totals = [torch.zeros(group.units, dtype=torch.float64) for group in self.groups]
        if self._of_units:
            each = [self._worth(number, step, share) for number in range(len(self.groups))]
            totals = [
                Units(group.name, found).scores().double()
                for group, found in zip(self.groups, on_host(each), strict=True)
            ]
        told: list[tuple[str, int, Part]] = []
        found: list[Tensor] = []
        places_of = {} if self._of_units else self._scored
        scored = {name: weight for name, weight in self.weights.items() if places_of.get(name)}
        criterion = hosted(self.criterion, list(scored.values()))
        for name, weight in scored.items():
            places = places_of[name]
            computed = [(number, part) for number, part in places if part.role == "out"]
            scores = where_float64_is(self._asked(criterion, weight, step, share, self._norm(weight, computed)))
            for number, part in places:
                others = [dim for dim in range(scores.dim()) if dim != part.dim]
                told.append((weight.target.name, number, part))
                found.append(scores.mean(others, dtype=torch.float64) if others else scores.double())
        for (name, number, part), means in zip(told, on_host(found), strict=True):
            totals[number] += Units(name, means).scores()[part.index].mean(1)
        if self.pattern.normalize:
            # Over all units, dead ones too: the fewer are left, the more each is worth. The mean of those left would
            # rise with every update, and a group of unequal units would wear away.
            means = [float((total * (a | self.reversible)).mean()) for total, a in zip(totals, alive, strict=True)]
            totals = [total / mean if mean > 0 else total for total, mean in zip(totals, means, strict=True)]
        if self.by_cost and self.price is not None:
            costs = self._cost.per_unit()
            totals = [total / cost if cost else total for total, cost in zip(totals, costs, strict=True)]
        return [total.float() for total in totals]

    def _asked(
        self, criterion: Criterion | SitedCriterion, weight: MaskedWeight, step: int, share: float, norm: Tensor | None
    ) -> Tensor:
        """Return the scores of a whole weight; where one rank fails at a piece, all do."""
        shards = [some.shard for some in self.weights.values()]
        found = together(lambda: weight.restore(scores_of(criterion, weight, step, share, norm)), shards)
        return found if gathers(criterion, weight) else whole(found, weight.shard)

    @cached_property
    def _scored(self) -> dict[str, list[tuple[int, Part]]]:
        """Name of a weight -> the groups to whose units its scores go, and which entries are theirs."""
        roles: tuple[Role, ...] = ("out", "in") if getattr(self.pattern, "readers", False) else ("out",)
        roles = ("norm",) if getattr(self.criterion, "of_norms", False) else roles
        counted = {weight.target.name for weight in self.counted}
        scored: dict[str, list[tuple[int, Part]]] = {}
        for number, group in enumerate(self.groups):
            for part in group.of(*roles):
                if part.name in (counted if part.role == "out" else self.weights):
                    scored.setdefault(part.name, []).append((number, part))
        return scored

    def _norm(self, weight: MaskedWeight, places: Sequence[tuple[int, Part]]) -> Tensor | None:
        """Return the scales behind a weight, one per output: those of all norms of the unit together."""
        outputs: Tensor | None = None
        for number, part in places:
            norms = list(self.groups[number].of("norm"))
            if not norms:
                continue
            each = [(p, self.weights[p.name]) for p in norms]
            scales = torch.stack([slices_of(whole(w.ranked().abs(), w.shard), p).sum(1) for p, w in each]).sum(0)
            if outputs is None:
                outputs = scales.new_ones(weight.shape[part.dim])
            outputs[part.index.to(outputs.device, non_blocking=True)] = scales[:, None].to(outputs)
        return outputs

    def _budget(self, scores: Sequence[Tensor], alive: Sequence[Tensor]) -> UnitBudget:
        layers = self._layers(alive)
        units: list[Units] = []
        for group, layer, score, a in zip(self.groups, layers, scores, alive, strict=True):
            living, at = a if layer.pruned else None, float(self.weights[group.name].threshold)
            units.append(Units(layer.name, score, False, living, weights=layer.shape[1], threshold=at))
        return UnitBudget(layers, units, self.scope, self.selection, self.pattern.multiple)

    def _layers(self, alive: Sequence[Tensor]) -> list[Layer]:
        """Return the groups as a scope sees them: a unit is a row, of all weights that compute it."""
        seen: dict[str, int] = {}
        layers: list[Layer] = []
        for group, a in zip(self.groups, alive, strict=True):
            seen[group.name] = number = seen.get(group.name, 0) + 1
            name = group.name if number == 1 else f"{group.name} ({number})"
            row = sum(
                self.weights[p.name].size // self.weights[p.name].shape[p.dim] * p.index.shape[1]
                for p in group.of("out")
            )
            dead = 0 if self.reversible else int((~a).sum())
            layers.append(Layer(name, (group.units, row), group.units * row, dead * row))
        return layers


def _any_along(flags: Tensor, part: Part) -> Tensor:
    """Return along the dimension of a part where one of the entries is true."""
    others = [dim for dim in range(flags.dim()) if dim != part.dim]
    return flags.any(others) if others else flags


def _mask(dims: Mapping[int, Tensor], weight: MaskedWeight) -> Tensor:
    """Return the mask of what lies here of a weight, for the positions that stay along some of its dimensions."""
    like, shard = weight.mask, weight.shard
    mask = like.new_ones([1] * like.dim())
    for dim, alive in dims.items():
        shape = [1] * like.dim()
        shape[dim] = -1
        here = alive if shard is None else alive[shard.box[dim]]
        mask = mask & here.to(like.device, non_blocking=True).view(shape)
    return mask.expand(like.shape).contiguous()
