"""The masks of weights whose zeros are held: read off once, and given as they are at every update."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import CoupledPattern, Pattern, SitedPattern
from lightning_prune.pruning.unit_update import UnitUpdate
from lightning_prune.pruning.waiting import some
from lightning_prune.pruning.weight_update import Decision, WeightUpdate
from lightning_prune.ranking import counts
from lightning_prune.report import percent
from lightning_prune.schedule import Schedule
from lightning_prune.shards import each, whole


@dataclass(frozen=True)
class HeldUpdate:
    """Weights whose zeros are held.

    Attributes:
        schedule: asks for the share that is held.
        of: the update that a schedule which prunes would make of them.
        pattern: what lives and dies together.
        weights: every tensor that is masked.
        counted: those among which zeros are counted.
    """

    schedule: Schedule
    of: WeightUpdate | UnitUpdate
    pattern: Pattern | SitedPattern | CoupledPattern
    weights: Sequence[MaskedWeight]
    counted: Sequence[MaskedWeight]

    def likely(self, sparsity: float) -> float:
        """Return a sparsity as it is."""
        return sparsity

    def spent(self) -> None:
        """Return nothing: weights are counted."""

    @property
    def size(self) -> int:
        """How many weights are counted."""
        return sum(weight.size for weight in self.counted)

    @property
    def grain(self) -> int:
        """What is held is held to one weight."""
        return 1

    @property
    def most(self) -> int:
        """How many counted weights can be zero: as many as are held."""
        return sum(weight.pruned for weight in self.counted)

    def decide(self, step: int) -> list[Decision]:
        """Return the masks as they are."""
        return [Decision(weight, weight.mask, 0.0) for weight in self.weights]

    def remember(self, step: int) -> None:
        """Do nothing: no criterion is asked."""

    def from_zeros(self) -> list[Decision]:
        """Return the masks that the zeros of a stripped model show."""
        return self.of.from_zeros()

    def zeros(self) -> list[Decision]:
        """Return the masks that the zeros of the weights show, in units of the pattern.

        Raises:
            ValueError: they are not those of a pattern that has so many of so many weights at zero.
        """
        pattern = self.pattern
        if isinstance(pattern, CoupledPattern):
            return self.of.from_zeros()
        return [
            Decision(w, _alive(w, pattern.at(w.target.name) if isinstance(pattern, SitedPattern) else pattern), 0.0)
            for w in self.weights
        ]

    def check_pattern(self) -> None:
        """Accept every criterion and scope: they are not asked."""

    def final_sparsities(self) -> dict[str, float]:
        """Return the share of every weight that is held."""
        return {weight.target.name: weight.pruned / max(1, weight.size) for weight in self.counted}

    def asked(self) -> dict[str, float]:
        """Return the same: no weight competes with another."""
        return self.final_sparsities()


def _alive(weight: MaskedWeight, pattern: Pattern) -> Tensor:
    """Return the mask of the units of which something is left."""
    alive = weight.values.detach() != 0
    if pattern.single:
        return alive
    masks: list[Tensor] = []
    for part in weight.parts(weight.canonical(whole(alive, weight.shard))):
        units = pattern.units(part.float())
        if pattern.least_sparsity:
            _check_shape(weight.target.name, pattern, units)
        masks.append(pattern.expand(units > 0, part.shape))
    return weight.piece(weight.restore(torch.cat(masks))).contiguous()


def _check_shape(name: str, pattern: Pattern, units: Tensor) -> None:
    """Raise ValueError if more units are left than the pattern leaves anywhere."""
    left = pattern.protected(units)
    over = 0 if left is None else int(((units > 0) & ~left).sum())
    if over:
        raise ValueError(
            f"the zeros of '{name}' do not keep to {pattern}: {over:,} weights are too many. Hold() holds the zeros "
            "that are there: leave the pattern out to hold them as they are, or prune to it with another schedule"
        )


def share_held(weights: Iterable[MaskedWeight]) -> float:
    """Return which share of the entries of weights is masked."""
    counted = list(weights)
    return sum(weight.pruned for weight in counted) / max(1, sum(weight.size for weight in counted))


def take_zeros(updates: Sequence[Any], names: Collection[str] | None) -> bool:
    """Read masks off the zeros of weights, and return whether there was anything to read.

    Args:
        updates: of one pruner; those that hold nothing are passed by.
        names: of the weights that are new; None for all.

    Raises:
        ValueError: none of all the weights has a zero, or zeros are not those of the pattern; no mask is written then.
    """
    holding = [update for update in updates if isinstance(update, HeldUpdate)]
    found = [decision for update in holding for decision in update.zeros()]
    found = [decision for decision in found if names is None or decision.weight.target.name in names]
    if holding and names is None and all(bool(decision.mask.all()) for decision in found):
        of = [decision.weight.target.name for decision in found]
        units = "" if getattr(holding[0].pattern, "single", False) else f"in whole units of {holding[0].pattern} "
        raise ValueError(
            f"Hold() found nothing {units}that is zero in {some(of)}: it holds the zeros of a model that is sparse "
            "already. Load its weights before the fit, or use a schedule that prunes"
        )
    for decision in found:
        decision.weight.write(decision.mask, decision.threshold)
    return bool(found)


def note_of_held(updates: Sequence[Any]) -> list[str]:
    """Return lines for the plan on what is held: how much, and which weights are zero in every entry."""
    lines: list[str] = []
    for update in updates:
        if not isinstance(update, HeldUpdate):
            continue
        lines.append(
            f"came with {update.most:,} of {update.size:,} weights at zero, {percent(update.most / update.size)}: "
            "they are held, and no more are pruned"
        )
        zeros = counts(w.values.detach() == 0 for w in update.counted)
        free = sum(each(zeros, [w.shard for w in update.counted])) - update.most
        if free:
            lines.append(f"{free:,} more zeros lie in units that are alive, and train")
        whole = [w.target.name for w in update.counted if w.pruned == w.size > 0]
        if whole:
            lines.append(
                f"zero in every entry, which stays so: {some(whole)}; a layer that was made to begin at zero is to "
                "be left out by Targets(exclude=...)"
            )
    return lines
