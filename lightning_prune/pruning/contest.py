"""The weights of a pool in one update, with their patterns and units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor

from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import Pattern
from lightning_prune.pruning.guarded import guarded, safe
from lightning_prune.selection import Units


@dataclass(frozen=True)
class WeightContest:
    """The weights of a pool with their patterns, and by layer and weight their units."""

    members: list[tuple[MaskedWeight, Pattern]]
    ranked: list[list[list[Units]]]

    @property
    def size(self) -> int:
        """How many weights compete."""
        return sum(weight.size for weight, _ in self.members)

    @property
    def layers(self) -> list[list[Units]]:
        """The units of each layer."""
        return [[units for parts in layer for units in parts] for layer in self.ranked]

    @property
    def sparing(self) -> list[Units]:
        """The units of patterns whose protected units never go."""
        return [u for (_, pattern), parts in self._each if getattr(pattern, "spares", False) for u in parts]

    def guarded(self) -> WeightContest:
        """Return the same with the units that go only after all others."""
        every = [guarded(pattern, units) for (_, pattern), parts in self._each for units in parts]
        return with_units([self], every)[0]

    def kept(self, keeps: Sequence[Tensor]) -> list[tuple[MaskedWeight, Pattern, list[Tensor]]]:
        """Return each weight with which of its units stay, those among them that never go."""
        rest = iter(keeps)
        found: list[tuple[MaskedWeight, Pattern, list[Tensor]]] = []
        for (weight, pattern), parts in self._each:
            kept = list(islice(rest, len(parts)))
            if getattr(pattern, "spares", False):  # not all selections mind them
                kept = [keep | safe(part) for keep, part in zip(kept, parts, strict=True)]
            found.append((weight, pattern, kept))
        return found

    @property
    def _each(self) -> Iterator[tuple[tuple[MaskedWeight, Pattern], list[Units]]]:
        return zip(self.members, (parts for layer in self.ranked for parts in layer), strict=True)


def with_units(contests: Sequence[WeightContest], units: Sequence[Units]) -> list[WeightContest]:
    """Return contests with other units, all of them one after the other."""
    rest = iter(units)
    return [
        replace(contest, ranked=[[list(islice(rest, len(parts))) for parts in layer] for layer in contest.ranked])
        for contest in contests
    ]
