"""Runs grouped into curves over sparsity, named by what tells them apart and no more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.cli.runs import Run

_NO_MATTER = re.compile(
    r"defaults$|seed$|logger\.|ckpt_path$|resume$|callbacks\.checkpoint\.|weights$|data\.root$|"
    r"trainer\.(enable_|log_every)"
)
"""Keys that do not change what a run finds, or not beyond chance."""
_FIRST = (
    *("data._target_", "task.net._target_", "task._target_", "pruner.pattern._target_", "pruner.schedule._target_"),
    *("pruner.criterion._target_", "pruner.scope._target_"),
)
_LONGEST = 40


@dataclass(frozen=True)
class Curve:
    """Runs that differ in sparsity and seed alone.

    Attributes:
        names: what tells it from the other curves, a word for each key that does.
        runs: by the sparsity asked for, ascending.
    """

    names: tuple[str, ...]
    runs: Mapping[float, Sequence[Run]]

    @property
    def label(self) -> str:
        """The words in one line."""
        return ", ".join(self.names) or "all runs"

    def points(self, metric: str) -> list[tuple[float, list[float]]]:
        """Return (sparsity reached, one value for each run), ascending, where there is such a metric."""
        found: list[tuple[float, list[float]]] = []
        for runs in self.runs.values():
            having = [run for run in runs if metric in run.metrics]
            if having:
                found.append((mean([run.sparsity for run in having]), [run.metrics[metric] for run in having]))
        return found


@dataclass(frozen=True)
class Curves:
    """All curves.

    Attributes:
        curves: in the order of their first runs.
        keys: what tells them apart.
        along: what else differs, always together with those: keys, or the sections that they are in.
    """

    curves: tuple[Curve, ...]
    keys: tuple[str, ...]
    along: tuple[str, ...]

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, accuracy and loss first."""
        runs = [run for curve in self.curves for members in curve.runs.values() for run in members]
        names = dict.fromkeys(name for run in runs for name in run.metrics)
        ends = ("accuracy", "loss")
        return sorted(names, key=lambda name: next((i for i, end in enumerate(ends) if name.endswith(end)), len(ends)))

    @property
    def sparsities(self) -> list[float]:
        """All sparsities that were asked for, ascending."""
        return sorted({sparsity for curve in self.curves for sparsity in curve.runs})


def group(runs: Sequence[Run]) -> Curves:
    """Return the curves that runs form."""
    differing = [key for key in _keys(runs) if len({repr(run.config.get(key)) for run in runs}) > 1]
    telling: list[str] = []
    told = _told(runs, telling)
    for key in differing:
        if _told(runs, [*telling, key]) > told:
            telling.append(key)
            told = _told(runs, telling)
    by_values: dict[str, list[Run]] = {}
    for run in runs:
        by_values.setdefault(repr([run.config.get(key) for key in telling]), []).append(run)
    curves = tuple(Curve(_names(members[0], telling), _by_sparsity(members)) for members in by_values.values())
    along = dict.fromkeys(key.rpartition(".")[0] or key for key in differing if key not in telling)
    return Curves(curves, tuple(telling), tuple(along))


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample of two or more."""
    return (sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def _keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys that may tell curves apart, the likeliest to mean something to people first."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config if not _NO_MATTER.match(key)))
    keys = [k for k in keys if not _follows(runs, k) and any(run.config.get(k) not in (None, {}) for run in runs)]
    plain = [key for key in keys if "." not in key]
    targets = sorted((key for key in keys if key.endswith("._target_") and key not in _FIRST), key=len)
    return list(dict.fromkeys([*plain, *(key for key in _FIRST if key in keys), *targets, *keys]))


def _follows(runs: Sequence[Run], key: str) -> bool:
    """Whether a key is always the sparsity asked for, or always the seed."""
    values = [run.config.get(key) for run in runs]
    return values == [run.final_sparsity for run in runs] or values == [run.seed for run in runs]


def _told(runs: Iterable[Run], keys: Sequence[str]) -> int:
    """Return into how many groups the keys part the runs."""
    return len({repr([run.config.get(key) for key in keys]) for run in runs})


def _names(run: Run, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(_name(key, run.config.get(key), keys) for key in keys)


def _name(key: str, value: Any, keys: Sequence[str]) -> str:
    above, _, last = key.rpartition(".")
    if last == "_target_":
        return f"no {above}" if value is None else str(value).rpartition(".")[2]
    if not above and isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}..."
    alike = [other for other in keys if other.rpartition(".")[2] == last]
    short = last if len(alike) == 1 else key
    return f"{short}={Path(value).name if isinstance(value, str) and '/' in value else value}"


def _by_sparsity(runs: Sequence[Run]) -> dict[float, list[Run]]:
    found: dict[float, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.final_sparsity):
        found.setdefault(run.final_sparsity, []).append(run)
    return found
