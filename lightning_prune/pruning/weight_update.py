"""One update of the masks of weights that share a schedule: weights, scores, units, counts, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from lightning_prune.criterion import Criterion, RememberingCriterion, Site, SitedCriterion
from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import Pattern, SitedPattern
from lightning_prune.pruning import floor
from lightning_prune.ranking import is_finite
from lightning_prune.schedule import Schedule
from lightning_prune.scope import Layer, Pool, Scope
from lightning_prune.selection import Selection, Units, check_found, held


@dataclass(frozen=True)
class Decision:
    """A new mask and threshold for one weight."""

    weight: MaskedWeight
    mask: Tensor
    threshold: float


@dataclass(frozen=True)
class WeightUpdate:
    """Weights that share a schedule, and the ideas by which they are pruned.

    Attributes:
        schedule: in whole steps.
        groups: the weights by the name under which a scope sees them.
        criterion: what a weight is worth.
        pattern: what lives and dies together.
        scope: who may keep how many.
        selection: from scores and counts to masks.
        reversible: pruned weights compete again.
    """

    schedule: Schedule
    groups: Mapping[str, Sequence[MaskedWeight]]
    criterion: Criterion | SitedCriterion
    pattern: Pattern | SitedPattern
    scope: Scope
    selection: Selection
    reversible: bool

    @property
    def size(self) -> int:
        """How many weights compete."""
        return sum(weight.mask.numel() for members in self.groups.values() for weight in members)

    @property
    def grain(self) -> int:
        """The budget is met to one weight; patterns of whole blocks say so where they are documented."""
        return 1

    @property
    def most(self) -> int:
        """How many weights can be zero: all."""
        return self.size

    def decide(self, step: int) -> list[Decision]:
        """Return the masks for the update at `step`. Writes to no weight and no mask.

        Raises:
            ValueError: a score is not finite or has another shape than its weight; the message names the weight.
        """
        decisions: list[Decision] = []
        for pool in self.scope(self._layers(), self.schedule.sparsity(step)):
            decisions += self._select(pool, [self.groups[name] for name in pool.names], step)
        return decisions

    def remember(self, step: int) -> None:
        """Have the criterion remember the weights, now that the update at `step` is certain and nothing is written."""
        for members in self.groups.values():
            for weight in members:
                remember(self.criterion, weight, step)

    def check_pattern(self) -> None:
        """Raise ValueError if the criterion asks for norms, or the scope leaves weights too dense for the pattern."""
        if getattr(self.criterion, "needs_norm", False):
            name = next(weight.target.name for members in self.groups.values() for weight in members)
            raise ValueError(f"{self.criterion} knows of no norm layer behind '{name}': use a channel pattern")
        if isinstance(self.pattern, SitedPattern):
            return
        least, final = self.pattern.least_sparsity, self.schedule.final_sparsity
        for pool in self.scope(self._layers(), final) if least and final else ():
            if pool.sparsity < least - 1e-12:
                raise ValueError(
                    f"scope={self.scope} takes {', '.join(pool.names)} to a sparsity of {pool.sparsity:.4f} only, and "
                    f"pattern={self.pattern} holds from {least:g} on: use another scope, or leave it out by Targets"
                )

    def final_sparsities(self) -> dict[str, float]:
        """Return the final sparsity of every weight that the scope gives one of its own."""
        pools = [pool for pool in self.scope(self._layers(), self.schedule.final_sparsity) if len(pool.names) == 1]
        members = {pool.names[0]: self.groups[pool.names[0]] for pool in pools}
        return {
            weight.target.name: pool.drop / sum(w.mask.numel() for w in members[pool.names[0]])
            for pool in pools
            for weight in members[pool.names[0]]
        }

    def asked(self) -> dict[str, float]:
        """Return the final sparsity that the scope asks of all that each weight competes with."""
        final = self.schedule.final_sparsity
        return {
            weight.target.name: pool.sparsity if pool.sparsity < 1.0 else final
            for pool in self.scope(self._layers(), final)
            for name in pool.names
            for weight in self.groups[name]
        }

    def from_zeros(self) -> list[Decision]:
        """Return the masks that the zeros of a stripped model show."""
        return [
            Decision(weight, weight.parameter.detach() != 0, 0.0)
            for members in self.groups.values()
            for weight in members
        ]

    def _layers(self) -> list[Layer]:
        return [self._layer(name, members) for name, members in self.groups.items()]

    def _layer(self, name: str, members: Sequence[MaskedWeight]) -> Layer:
        shapes = [w.parts(w.canonical(w.mask))[0].shape for w in members]
        shape = shapes[0] if len(shapes) == 1 else (shapes[0][0], sum(s[1] for s in shapes))
        pruned = 0 if self.reversible else sum(w.pruned for w in members)
        return Layer(name, tuple(shape), sum(w.mask.numel() for w in members), pruned)

    def _select(self, pool: Pool, layers: Sequence[Sequence[MaskedWeight]], step: int) -> list[Decision]:
        members = [weight for layer in layers for weight in layer]
        patterns = [self._pattern_at(weight) for weight in members]
        finite: list[tuple[str, Tensor]] = []  # looked at all together: each look waits for the device
        each = zip(members, patterns, strict=True)
        ranked = [self._units(weight, pattern, step, finite) for weight, pattern in each]
        check_found(finite)
        sparing = [parts for parts, pattern in zip(ranked, patterns, strict=True) if getattr(pattern, "spares", False)]
        most = sum(weight.mask.numel() for weight in members) - _spared([u for parts in sparing for u in parts])
        each = iter(ranked)
        by_layer = [[unit for _ in layer for unit in next(each)] for layer in layers]
        keeps, threshold = floor.select(self.selection, by_layer, pool.least, min(pool.drop, most), pool.sparsity)
        rest = iter(keeps)
        decisions: list[Decision] = []
        for weight, pattern, parts in zip(members, patterns, ranked, strict=True):
            kept = list(islice(rest, len(parts)))
            if getattr(pattern, "spares", False):  # not all selections mind them
                kept = [keep | _safe(part) for keep, part in zip(kept, parts, strict=True)]
            if pattern.single:
                mask = kept[0]
            else:
                shape = weight.parts(weight.canonical(weight.mask))[0].shape
                mask = weight.restore(torch.cat([pattern.expand(keep, shape) for keep in kept])).contiguous()
                mask = mask if self.reversible else mask & weight.mask
            decisions.append(Decision(weight, mask, threshold))
        return decisions

    def _units(
        self, weight: MaskedWeight, pattern: Pattern, step: int, finite: list[tuple[str, Tensor]]
    ) -> list[Units]:
        """Return the units of a weight, or those of every expert that it stacks.

        Where they are not the scores themselves, add to `finite` whether those are: they must not be pooled away.
        """
        name, threshold = weight.target.name, float(weight.threshold)
        mask = None if self.reversible or weight.pruned == 0 else weight.mask
        living = None if mask is None else mask.numel() - weight.pruned
        if pattern.single and getattr(self.criterion, "absolute", False):
            return [Units(name, weight.ranked(), True, mask, threshold=threshold, living=living)]
        scores = scores_of(self.criterion, weight, step, self.schedule.sparsity(step))
        if pattern.single:
            return [Units(name, weight.restore(scores), False, mask, threshold=threshold, living=living)]
        finite.append((name, is_finite(scores)))
        masks = [None] * weight.experts if mask is None else weight.parts(weight.canonical(mask))
        return [
            _units_of(name, pattern, part, alive, threshold)
            for part, alive in zip(weight.parts(scores), masks, strict=True)
        ]

    def _pattern_at(self, weight: MaskedWeight) -> Pattern:
        if isinstance(self.pattern, SitedPattern):
            return self.pattern.at(weight.target.name)
        return self.pattern


def _units_of(name: str, pattern: Pattern, scores: Tensor, mask: Tensor | None, threshold: float) -> Units:
    units = pattern.units(scores)
    alive = None if mask is None else pattern.units(mask.float()) > 0
    lowest = torch.finfo(units.dtype).min
    protected = pattern.protected(units if alive is None else units.masked_fill(~alive, lowest))
    return Units(name, units, False, alive, protected, pattern.weights_per_unit(scores.shape), threshold)


def _safe(units: Units) -> Tensor:
    """Return the units that are protected and alive."""
    if units.protected is None:
        return torch.zeros_like(units.values, dtype=torch.bool)
    return units.protected if units.alive is None else units.protected & units.alive


def _spared(pool: Sequence[Units]) -> int:
    """Return how many weights the protected units hold that are alive."""
    return sum(held(pool, [_safe(units) for units in pool]))


def scores_of(
    criterion: Criterion | SitedCriterion, weight: MaskedWeight, step: int, sparsity: float, norm: Tensor | None = None
) -> Tensor:
    """Return the criterion's scores of a weight, output dimension first.

    One that scores whole outputs is asked for every expert of a stack by itself, with a memory of its own.

    Raises:
        ValueError: they have another shape than the weight, or are no floats.
    """
    values, grad = _seen(weight)
    if _at_once(criterion, weight):
        return _scores(criterion, Site(weight.target.name, step, weight.memory, sparsity, norm), values, grad, True)
    grads = [None] * weight.experts if grad is None else weight.parts(grad)
    scores: list[Tensor] = []
    for number, (part, its_grad) in enumerate(zip(weight.parts(values), grads, strict=True)):
        own = f"{number}/"
        memory = {key.removeprefix(own): kept for key, kept in weight.memory.items() if key.startswith(own)}
        site = Site(weight.target.name, step, memory, sparsity, norm)
        scores.append(_scores(criterion, site, part, its_grad))
        weight.memory.update({own + key: kept for key, kept in memory.items()})
    return torch.cat(scores)


def remember(criterion: Criterion | SitedCriterion, weight: MaskedWeight, step: int) -> None:
    """Have the criterion move on what it remembers of a weight, if it does so apart from its scores."""
    if not _at_once(criterion, weight) or not isinstance(criterion, RememberingCriterion):
        return
    asked: Any = criterion
    if isinstance(criterion, SitedCriterion):
        asked = criterion.at(Site(weight.target.name, step, weight.memory))
    with torch.no_grad():
        asked.remember(*_seen(weight))


def _at_once(criterion: Criterion | SitedCriterion, weight: MaskedWeight) -> bool:
    return weight.experts == 1 or not getattr(criterion, "of_outputs", False)


def _seen(weight: MaskedWeight) -> tuple[Tensor, Tensor | None]:
    """Return what a criterion sees of a weight."""
    grad = weight.parameter.grad
    return weight.canonical(weight.ranked()), None if grad is None else weight.canonical(grad)


def _scores(
    criterion: Criterion | SitedCriterion, site: Site, values: Tensor, grad: Tensor | None, apart: bool = False
) -> Tensor:
    asked = criterion.at(site) if isinstance(criterion, SitedCriterion) else criterion
    with torch.no_grad():
        ask = asked.score if apart and isinstance(asked, RememberingCriterion) else asked
        scores = ask(values, grad).detach()
    if scores.shape != values.shape or not scores.is_floating_point():
        raise ValueError(
            f"{type(criterion).__name__} must give a float score for every entry of '{site.name}', "
            f"of shape {tuple(values.shape)}; it gave {scores.dtype} of shape {tuple(scores.shape)}"
        )
    return scores
