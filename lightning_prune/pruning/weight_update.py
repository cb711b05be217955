"""One update of the masks of weights that share a schedule: weights, scores, units, counts, masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from lightning_prune.criterion import Criterion, RememberingCriterion, SitedCriterion
from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import Pattern, SitedPattern
from lightning_prune.pruning import few_units, floor
from lightning_prune.pruning.asking import gathers, remember, scores_of
from lightning_prune.pruning.contest import WeightContest, with_units
from lightning_prune.pruning.guarded import living_units, safe
from lightning_prune.pruning.hosted import hosted
from lightning_prune.pruning.observed import Observed
from lightning_prune.pruning.turns import Turns, check_apart, in_turn
from lightning_prune.pruning.units_of_pieces import grid_at, joined, mask_of, piece_of, shape_of_one, units_here
from lightning_prune.ranking import ends
from lightning_prune.schedule import Schedule, TurnSchedule
from lightning_prune.scope import Layer, Pool, Scope
from lightning_prune.selection import Selection, Units, check_found, held, shards_of
from lightning_prune.shards import together, whole


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
        turns: where layers are pruned one after the other, the number of each one's turn; None where all are together.
    """

    schedule: Schedule
    groups: Mapping[str, Sequence[MaskedWeight]]
    criterion: Criterion | SitedCriterion
    pattern: Pattern | SitedPattern
    scope: Scope
    selection: Selection
    reversible: bool
    turns: Turns | None = None

    @property
    def size(self) -> int:
        """How many weights compete."""
        return sum(weight.size for members in self.groups.values() for weight in members)

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
        pools, still = self._pools(step)
        weights = [weight for members in self.groups.values() for weight in members]
        alone = all(weight.mask.device.type == "cpu" and weight.shard is None for weight in weights)
        # Devices and other ranks are waited for less often if all is ranked together; otherwise it only takes room.
        at_once = [[pool] for pool in pools] if alone else [pools]
        asked = replace(self, criterion=hosted(self.criterion, weights))
        return still + [decision for some in at_once if some for decision in asked._select(some, step)]

    def _pools(self, step: int) -> tuple[list[Pool], list[Decision]]:
        """Return the pools that are to be ranked, and the masks of weights that stay what they are."""
        layers = self._layers()
        if self.turns is None or not isinstance(self.schedule, TurnSchedule):
            return list(self.scope(layers, self.schedule.sparsity(step))), []
        pruned = {layer.name: layer.pruned for layer in layers}
        pools = in_turn(self.scope(layers, self._asked(step)), layers, self.turns, self.schedule.turns(step))
        more = [pool for pool in pools if pool.drop > pruned[pool.names[0]]]
        names = {name for pool in more for name in pool.names}
        stay = [weight for name, members in self.groups.items() if name not in names for weight in members]
        return more, [Decision(weight, weight.mask, float(weight.threshold)) for weight in stay]

    def _asked(self, step: int) -> float:
        """Return the sparsity asked of the layers that are pruned at `step`."""
        return self.schedule.sparsity(step) if self.turns is None else self.schedule.final_sparsity

    def by_layer(self) -> list[tuple[str, str, float]]:
        """Return by layer its name, that of its first weight, and how many weights go in the end.

        Raises:
            ValueError: layers are ranked together.
        """
        pools = self.scope(self._layers(), self.schedule.final_sparsity)
        check_apart(pools, self.scope, self.schedule)
        return [(pool.names[0], self.groups[pool.names[0]][0].target.name, float(pool.drop)) for pool in pools]

    def remember(self, step: int) -> None:
        """Have the criterion remember the weights, now that the update at `step` is certain and nothing is written."""
        if not isinstance(self.criterion, RememberingCriterion):  # asked once: the answer takes longer than the rest
            return
        for members in self.groups.values():
            for weight in members:
                remember(self.criterion, weight, step)

    def likely(self, sparsity: float) -> float:
        """Return a sparsity as it is: what it is a share of are the weights."""
        return sparsity

    def spent(self) -> None:
        """Return nothing: weights are counted."""

    def places(self) -> list[Observed]:
        """Return where a criterion looks at training: at each weight."""
        return [Observed(weight, weight) for members in self.groups.values() for weight in members]

    def check_pattern(self) -> None:
        """Raise ValueError for missing norms, layers a scope names amiss, and weights too dense for the pattern."""
        if getattr(self.criterion, "needs_norm", False):
            name = next(weight.target.name for members in self.groups.values() for weight in members)
            raise ValueError(f"{self.criterion} knows of no norm layer behind '{name}': use a channel pattern")
        final = self.schedule.final_sparsity
        pools = self.scope(self._layers(), final)
        if isinstance(self.pattern, SitedPattern):
            return
        least = self.pattern.least_sparsity
        for pool in pools if least and final else ():
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
            weight.target.name: pool.drop / sum(w.size for w in members[pool.names[0]])
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
            Decision(weight, weight.values.detach() != 0, 0.0) for members in self.groups.values() for weight in members
        ]

    def _layers(self) -> list[Layer]:
        return [self._layer(name, members) for name, members in self.groups.items()]

    def _layer(self, name: str, members: Sequence[MaskedWeight]) -> Layer:
        shapes = [shape_of_one(w) for w in members]
        shape = shapes[0] if len(shapes) == 1 else (shapes[0][0], sum(s[1] for s in shapes))
        pruned = 0 if self.reversible else sum(w.pruned for w in members)
        return Layer(name, tuple(shape), sum(w.size for w in members), pruned)

    def _select(self, pools: Sequence[Pool], step: int) -> list[Decision]:
        finite: list[tuple[str, Tensor]] = []  # looked at all together: each look waits for the device
        contests = self._contests(pools, step, finite)
        there = [units for contest in contests for layer in contest.layers for units in layer]
        check_found(finite, shards_of(there) if finite else ())  # single entries are looked at where they are ranked
        contests = joined(contests)
        there = [units for contest in contests for layer in contest.layers for units in layer]
        few = few_units.are_few(there)
        if few:
            contests = with_units(contests, few_units.brought(there))
        contests = [contest.guarded() for contest in contests]
        sparing = [units for contest in contests for units in contest.sparing]
        spared = iter(held(sparing, [safe(units) for units in sparing]))
        most = [contest.size - sum(islice(spared, len(contest.sparing))) for contest in contests]
        asked = [
            (contest.layers, pool.least, min(pool.drop, top), pool.sparsity)
            for pool, contest, top in zip(pools, contests, most, strict=True)
        ]
        found = floor.select_each(self.selection, asked)
        del asked, sparing
        each = zip(contests, found, strict=True)
        kept = [(*member, threshold) for contest, (keeps, threshold) in each for member in contest.kept(keeps)]
        if few:
            masks = few_units.returned([keep for *_, keeps, _ in kept for keep in keeps], there)
            kept = [(w, pattern, list(islice(masks, len(keeps))), at) for w, pattern, keeps, at in kept]
        del contests, each, found, there  # the scores, before masks are made of what stays
        decisions: list[Decision] = []
        while kept:
            weight, pattern, keeps, threshold = kept.pop()
            decisions.append(Decision(weight, self._mask(weight, pattern, keeps), threshold))
        return decisions[::-1]

    def _contests(self, pools: Sequence[Pool], step: int, finite: list[tuple[str, Tensor]]) -> list[WeightContest]:
        """Return the contests of pools; where one rank fails, and weights are taken apart, all fail."""
        shards = [weight.shard for members in self.groups.values() for weight in members]
        return together(lambda: [self._contest(pool, step, finite) for pool in pools], shards)

    def _contest(self, pool: Pool, step: int, finite: list[tuple[str, Tensor]]) -> WeightContest:
        pattern = self._pattern_at
        layers = [[(w, pattern(w.target.name)) for w in self.groups[name]] for name in pool.names]
        return WeightContest(
            [member for layer in layers for member in layer],
            [[self._units(weight, pattern, step, finite) for weight, pattern in layer] for layer in layers],
        )

    def _mask(self, weight: MaskedWeight, pattern: Pattern, kept: Sequence[Tensor]) -> Tensor:
        """Return the mask of a weight for the units that stay of it, or of each expert."""
        if pattern.single:
            return piece_of(kept[0], weight.shard)
        grid = None if gathers(self.criterion, weight) else grid_at(weight, pattern)
        if grid is not None:
            mask = mask_of(grid, weight, kept[0])
            return mask if self.reversible else mask & weight.mask
        parts = [pattern.expand(keep, shape_of_one(weight)) for keep in kept]
        mask = weight.piece(weight.restore(parts[0] if len(parts) == 1 else torch.cat(parts))).contiguous()
        return mask if self.reversible else mask & weight.mask

    def _units(
        self, weight: MaskedWeight, pattern: Pattern, step: int, finite: list[tuple[str, Tensor]]
    ) -> list[Units]:
        """Return the units of a weight, or those of every expert that it stacks.

        Where they are not the scores themselves, add the ends of those to `finite`: they must not be pooled away.
        They are those of the piece that lies here; where borders between pieces may cut some, of the whole weight.
        """
        name, threshold, shard = weight.target.name, float(weight.threshold), weight.shard
        mask = None if self.reversible or weight.pruned == 0 else weight.mask
        living = None if mask is None else weight.size - weight.pruned
        if pattern.single and getattr(self.criterion, "absolute", False):
            return [Units(name, weight.ranked(), True, mask, threshold=threshold, living=living, shard=shard)]
        asked = self._asked(step)
        entries = getattr(pattern, "entries", False) and getattr(self.criterion, "absolute", False)
        grid = None if pattern.single or gathers(self.criterion, weight) else grid_at(weight, pattern)
        if grid is not None:
            scores = weight.canonical(weight.ranked()) if entries else scores_of(self.criterion, weight, step, asked)
            finite.append((name, ends(scores)))
            return [units_here(grid, weight, pattern, scores, mask, entries)]
        masks: Sequence[Tensor | None] = [None] * weight.experts
        if mask is not None and not pattern.single:
            masks = weight.parts(weight.canonical(whole(mask, shard)))
        if entries:
            values = weight.canonical(whole(weight.ranked(), shard))
            finite.append((name, ends(values)))
            each = zip(weight.parts(values), masks, strict=True)
            return [Units(name, part, True, alive, threshold=threshold) for part, alive in each]
        # Each made before the next and let go then: scores are held for single weights alone.
        alive = [] if pattern.single else [None if m is None else living_units(pattern, m) for m in masks]
        scores = scores_of(self.criterion, weight, step, asked)
        restored = weight.restore(scores)
        if pattern.single:
            values = weight.piece(restored) if gathers(self.criterion, weight) else restored
            return [Units(name, values, False, mask, threshold=threshold, living=living, shard=shard)]
        if shard is not None and not gathers(self.criterion, weight):
            scores = weight.canonical(whole(restored, shard))
        del restored
        finite.append((name, ends(scores)))
        units = [pattern.units(part) for part in weight.parts(scores)]
        holds = pattern.weights_per_unit(weight.parts(scores)[0].shape)
        del scores
        return [
            Units(name, some, False, None if living is None else living.reshape(some.shape), None, holds, threshold)
            for some, living in zip(units, alive, strict=True)
        ]

    @property
    def _pattern_at(self) -> Callable[[str], Pattern]:
        """From the name of a weight to its pattern; asked once, as an answer for each takes as long as the rest."""
        if isinstance(self.pattern, SitedPattern):
            return self.pattern.at
        pattern = self.pattern
        return lambda name: pattern
