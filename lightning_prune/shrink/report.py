"""What shrinking did, for people and for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lightning_prune.report import columns, percent
from lightning_prune.shown import by_reason


@dataclass(frozen=True)
class ShrunkGroup:
    """One group of units: its first weight, how many units it had and has, and why dead ones had to stay."""

    name: str
    before: int
    after: int
    reason: str = ""


@dataclass(frozen=True)
class ShrinkReport:
    """What shrinking did.

    Attributes:
        groups: every group of units, dead ones in it or not.
        skipped: weight -> why its outputs cannot be removed.
        parameters: entries of all parameters, before and after.
        difference: the largest difference of an output on the example inputs, in evaluation and in training mode.
        relative: the same as a share of the largest output.
        notes: what is to be known besides, a line each.
    """

    groups: Sequence[ShrunkGroup]
    skipped: Mapping[str, str]
    parameters: tuple[int, int]
    difference: float
    relative: float
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return asdict(self) | {"groups": [asdict(group) for group in self.groups], "skipped": dict(self.skipped)}

    def table(self) -> str:
        """Return a table for people."""
        rows = [("units of", "before", "after", "removed")]
        rows += [(g.name, f"{g.before:,}", f"{g.after:,}", percent(1 - g.after / g.before)) for g in self.groups]
        before, after = self.parameters
        rows.append(("parameters", f"{before:,}", f"{after:,}", percent(1 - after / before)))
        lines = [columns(rows, rules={1, len(rows) - 1})]
        lines += [f"{group.name}: {group.reason}" for group in self.groups if group.reason]
        lines += by_reason("not shrunk", self.skipped)
        lines.append(f"outputs differ by {self.difference:.2g} at most, {self.relative:.2g} of the largest")
        lines += self.notes
        return "\n".join(lines)
