"""The sections of a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lightning_prune.page.figure import Table
from lightning_prune.page.layers import layers, weights
from lightning_prune.page.left import left
from lightning_prune.page.over_time import over_time
from lightning_prune.page.part import Code, Part
from lightning_prune.page.run import Run
from lightning_prune.shown import by_reason


@dataclass(frozen=True)
class Section:
    """A section: what is said of a run in it, and what it is called."""

    key: str
    title: str
    of: Callable[[Run], Part] = field(repr=False)


def config(run: Run) -> Part:
    """Return the command that repeats the run, its config, and the versions that decide about its numbers."""
    codes = [Code("The command that repeats it", run.command, True), Code("Its config", run.config, False)]
    versions = run.report.get("versions")
    rows = [[str(name), str(value)] for name, value in versions.items()] if isinstance(versions, Mapping) else []
    return Part(tables=[Table(["made with", "version"], rows)] if rows else (), codes=codes)


def absent(run: Run) -> Part:
    """Return what is left whole and why, and what the page cannot show."""
    skipped = run.report.get("skipped")
    reasons = {str(n): str(why) for n, why in skipped.items()} if isinstance(skipped, Mapping) else {}
    whole = [f"L{line[1:]}." for line in by_reason("left whole", reasons)]
    return Part(notes=[*whole, *(f"Not shown: {each}." for each in run.missing)])


SECTIONS = (
    Section("steps", "Over time", over_time),
    Section("layers", "Layer by layer", layers),
    Section("weights", "Weights and masks", weights),
    Section("left", "What is left", left),
    Section("config", "Do it again", config),
    Section("absent", "Left whole, and not shown", absent),
)
