"""What a section of the page says of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.page.figure import Figure, Table
from lightning_prune.page.mask import Mask
from lightning_prune.report import WeightReport

PICTURES = 40
"""More layers than this have no pictures but for the largest."""


@dataclass(frozen=True)
class Card:
    """One layer: its name, what is said of it, how its values lie, and its mask."""

    layer: WeightReport
    said: str
    values: Figure | None
    mask: Mask | None


@dataclass(frozen=True)
class Code:
    """A text to copy: what it is, and whether it is shown at once."""

    name: str
    text: str
    shown: bool


@dataclass(frozen=True)
class Part:
    """What a section says of one run."""

    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    cards: Sequence[Card] = ()
    notes: Sequence[str] = ()
    codes: Sequence[Code] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.figures or self.tables or self.cards or self.notes or self.codes)


def joined(*parts: Part) -> Part:
    """Return several parts as one."""
    return Part(
        [each for part in parts for each in part.figures],
        [each for part in parts for each in part.tables],
        [each for part in parts for each in part.cards],
        [each for part in parts for each in part.notes],
        [each for part in parts for each in part.codes],
    )


def largest(found: Sequence[WeightReport]) -> list[WeightReport]:
    """Return the layers that have pictures, in their order."""
    names = {v.name for v in sorted(found, key=lambda v: -v.size)[:PICTURES]}
    return [v for v in found if v.name in names]


def left_out(every: Sequence[WeightReport], shown: Sequence[WeightReport]) -> list[str]:
    """Return what there is to say of layers without pictures."""
    left = len(every) - len(shown)
    return (
        [f"Pictures show the {len(shown)} largest layers; {left} smaller ones are in the table alone."] if left else []
    )
