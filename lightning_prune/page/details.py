"""What a page shows and no other file of a run holds: histograms before and after, masks, and what the model costs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from lightning_prune import saved
from lightning_prune.page import histogram as histograms
from lightning_prune.page import mask as masks
from lightning_prune.page.histogram import Histogram
from lightning_prune.page.mask import Mask
from lightning_prune.shards import is_plain
from lightning_prune.targets import plain_name

DETAILS = "details.json"
_VERSION = 1


@dataclass(frozen=True)
class Weight:
    """One weight, as far as it was looked at.

    Attributes:
        before: its values when the run began.
        after: those that are left.
        mask: which are left.
    """

    before: Histogram | None = None
    after: Histogram | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class Details:
    """What a run has left in `details.json`.

    Attributes:
        weights: dotted name -> what was seen of it.
        cost: what the model costs whose shapes pruning has left as they were; empty where that was not counted.
        notes: what could not be looked at, and why.
    """

    weights: Mapping[str, Weight] = field(default_factory=dict[str, Weight])
    cost: Mapping[str, float] = field(default_factory=dict[str, float])
    notes: tuple[str, ...] = ()


class Recorder:
    """Look at a model before and after it is pruned, and write what was seen into a run's folder.

    Args:
        folder: the run's. What a run that goes on has seen before stays.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / DETAILS
        self._weights: dict[str, dict[str, Any]] = {}
        self._cost: dict[str, float] = {}
        self._notes: list[str] = []
        self._after = False

    def before(self, model: nn.Module, goes_on: bool = False) -> None:
        """Look at every weight of two or more dimensions.

        Args:
            model: before its first step.
            goes_on: its weights are to come from a checkpoint, so what the run has seen before is taken over.
        """
        if goes_on:
            self._take_over()
            return
        for name, weight in _matrices(model):
            if is_plain(weight):
                seen = histograms.histogram(weight)
                self._weights[name] = {"before": None if seen is None else seen.to_dict()}
        self._write()

    def after(self, model: nn.Module) -> None:
        """Look at what is left, once: a model that becomes smaller is looked at before it does."""
        if self._after:
            return
        self._after = True
        apart = 0
        for name, weight in _matrices(model):
            if is_plain(weight):
                seen = histograms.histogram(weight)
                after = {"after": None if seen is None else seen.to_dict(), "mask": masks.mask(weight).to_dict()}
                self._weights[name] = self._weights.get(name, {}) | after
            else:
                apart += 1
        if apart:
            self._notes.append(f"{apart} weights lie in pieces on several processes, and were not looked at afterwards")

    def costs(self, numbers: Mapping[str, float], note: str = "") -> None:
        """Keep what a model costs, or why nobody knows."""
        self._cost = dict(numbers)
        self._notes += [note] if note else []

    def keep(self, names: list[str]) -> None:
        """Write it all, of these weights alone."""
        self._weights = {name: self._weights[name] for name in names if name in self._weights}
        self._write()

    def _take_over(self) -> None:
        found = saved.load_json(self._file) if self._file.is_file() else {}
        seen = saved.mapping("weights", found.get("weights", {}))
        self._weights = {name: {"before": each.get("before")} for name, each in seen.items() if isinstance(each, dict)}
        if not self._weights:
            self._notes.append("weights before pruning: the run went on from a checkpoint")

    def _write(self) -> None:
        found = {"version": _VERSION, "weights": self._weights, "cost": self._cost, "notes": self._notes}
        unfinished = self._file.with_name(f".{DETAILS}.unfinished")
        unfinished.write_text(json.dumps(found) + "\n", encoding="utf-8")
        os.replace(unfinished, self._file)


def read_details(folder: Path) -> Details:
    """Return what a run has left, nothing if it has no such file. Raises ValueError if that is damaged."""
    file = folder / DETAILS
    if not file.is_file():
        return Details()
    found = saved.load_json(file)
    if found.get("version") != _VERSION:
        raise ValueError(f"{DETAILS} has version {found.get('version')!r}, this lightning_prune reads {_VERSION}")
    weights = saved.mapping("weights", saved.at(DETAILS, found, "weights"))
    cost = saved.mapping("cost", saved.at(DETAILS, found, "cost"))
    notes = saved.sequence("notes", saved.at(DETAILS, found, "notes"))
    return Details(
        {name: _weight(f"weights[{name!r}]", seen) for name, seen in weights.items()},
        {name: saved.number(f"cost.{name}", value, 0.0) for name, value in cost.items()},
        tuple(saved.text("notes", note) for note in notes),
    )


def _weight(where: str, found: Any) -> Weight:
    seen = saved.mapping(where, found)
    before, after = (seen.get(key) and histograms.read(f"{where}.{key}", seen[key]) for key in ("before", "after"))
    mask = seen.get("mask") and masks.read(f"{where}.mask", seen["mask"])
    return Weight(before or None, after or None, mask or None)


def _matrices(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    found = [(plain_name(name), weight) for name, weight in model.named_parameters() if not is_lazy(weight)]
    return [(n, w) for n, w in found if w.dim() > 1 and w.is_floating_point() and not w.is_meta]
