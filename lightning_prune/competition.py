"""One update of the masks of weights that share a schedule: weights, scores, units, counts, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.masks import MaskedWeight
from lightning_prune.protocols import (
    Criterion,
    Layer,
    Pattern,
    Pool,
    Schedule,
    Scope,
    Selection,
    Site,
    SitedCriterion,
    SitedPattern,
    Units,
)
from lightning_prune.targets import Target


@dataclass(frozen=True)
class Decision:
    """A new mask and threshold for one weight."""

    weight: MaskedWeight
    mask: Tensor
    threshold: float


@dataclass(frozen=True)
class Competition:
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
    criterion: Criterion
    pattern: Pattern | SitedPattern
    scope: Scope
    selection: Selection
    reversible: bool

    @property
    def size(self) -> int:
        """How many weights compete."""
        return sum(weight.mask.numel() for members in self.groups.values() for weight in members)

    def decide(self, step: int) -> list[Decision]:
        """Return the masks for the update at `step`. Writes to no weight and no mask.

        Raises:
            ValueError: a score is not finite or has another shape than its weight; the message names the weight.
        """
        decisions: list[Decision] = []
        for pool in self.scope(self._layers(), self.schedule.sparsity(step)):
            decisions += self._select(pool, [weight for name in pool.names for weight in self.groups[name]], step)
        return decisions

    def check_pattern(self) -> None:
        """Raise ValueError if the scope leaves weights too dense for the pattern to hold in the end."""
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

    def _layers(self) -> list[Layer]:
        return [self._layer(name, members) for name, members in self.groups.items()]

    def _layer(self, name: str, members: Sequence[MaskedWeight]) -> Layer:
        shapes = [_canonical(w.mask, w.target).shape for w in members]
        shape = shapes[0] if len(shapes) == 1 else (shapes[0][0], sum(s[1] for s in shapes))
        pruned = 0 if self.reversible else sum(w.pruned for w in members)
        return Layer(name, tuple(shape), sum(w.mask.numel() for w in members), pruned)

    def _select(self, pool: Pool, members: Sequence[MaskedWeight], step: int) -> list[Decision]:
        patterns = [self._pattern_at(weight, step) for weight in members]
        units = [self._units(weight, pattern, step) for weight, pattern in zip(members, patterns, strict=True)]
        keeps, threshold = self.selection(units, pool.drop, pool.sparsity)
        decisions: list[Decision] = []
        for weight, pattern, keep in zip(members, patterns, keeps, strict=True):
            mask = keep
            if not pattern.single:
                shape = _canonical(weight.mask, weight.target).shape
                mask = _canonical(pattern.expand(keep, shape), weight.target).contiguous()
                mask = mask if self.reversible else mask & weight.mask
            decisions.append(Decision(weight, mask, threshold))
        return decisions

    def _units(self, weight: MaskedWeight, pattern: Pattern, step: int) -> Units:
        name, threshold = weight.target.name, float(weight.threshold)
        mask = None if self.reversible or weight.pruned == 0 else weight.mask
        if pattern.single and getattr(self.criterion, "absolute", False):
            return Units(name, weight.ranked(), True, mask, threshold=threshold)
        scores = self._scores(weight, step)
        if pattern.single:
            return Units(name, scores, False, mask, threshold=threshold)
        scores = _canonical(Units(name, scores).scores(), weight.target)  # not finite must not be pooled away
        units = pattern.units(scores)
        alive = None if mask is None else pattern.units(_canonical(mask, weight.target).float()) > 0
        lowest = torch.finfo(units.dtype).min
        protected = pattern.protected(units if alive is None else units.masked_fill(~alive, lowest))
        return Units(name, units, False, alive, protected, pattern.weights_per_unit(scores.shape), threshold)

    def _scores(self, weight: MaskedWeight, step: int) -> Tensor:
        criterion = self.criterion
        if isinstance(criterion, SitedCriterion):
            criterion = criterion.at(Site(weight.target.name, step, weight.memory))
        with torch.no_grad():
            scores = criterion(weight.ranked(), weight.parameter.grad).detach()
        if scores.shape != weight.mask.shape or not scores.is_floating_point():
            raise ValueError(
                f"{type(self.criterion).__name__} must give a float score for every entry of '{weight.target.name}', "
                f"of shape {tuple(weight.mask.shape)}; it gave {scores.dtype} of shape {tuple(scores.shape)}"
            )
        return scores

    def _pattern_at(self, weight: MaskedWeight, step: int) -> Pattern:
        if isinstance(self.pattern, SitedPattern):
            return self.pattern.at(Site(weight.target.name, step))
        return self.pattern


def _canonical(tensor: Tensor, target: Target) -> Tensor:
    """Return a view with the output dimension first and the input dimension second, or back again."""
    return tensor.transpose(0, 1) if target.transposed else tensor
