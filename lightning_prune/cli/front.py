"""The runs of a sweep that no other run beats in everything: its Pareto front."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_prune.cli.sweep import Sweep, from_here
from lightning_prune.report import columns

FILE = "front.csv"


def front(points: Sequence[Sequence[float]], maximize: Sequence[bool]) -> list[int]:
    """Return the indices of the points that no other point beats.

    Args:
        points: points x objectives.
        maximize: for each objective, whether more is better.

    A point beats another if it is as good in all objectives and better in one; equal points both stay.
    """
    signed = [tuple(v if up else -v for v, up in zip(point, maximize, strict=True)) for point in points]

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    return [i for i, point in enumerate(signed) if not any(beats(other, point) for other in signed)]


def say(sweep: Sweep) -> None:
    """Print the front of a sweep that optimizes, best in its first objective first, and write it as `front.csv`."""
    directions: Mapping[str, str] = sweep.directions
    runs = [outcome for outcome in sweep.outcomes if len(outcome.values) == len(directions)]
    if not directions or not runs:
        return
    maximize = [direction == "maximize" for direction in directions.values()]
    best = [runs[i] for i in front([run.values for run in runs], maximize)]
    best.sort(key=lambda run: run.values[0], reverse=maximize[0])
    names = list(directions)
    rows = [("run", *names), *((str(from_here(Path(r.folder))), *(f"{v:.4g}" for v in r.values)) for r in best)]
    asked = " and ".join(f"{direction} {name}" for name, direction in directions.items())
    beaten = f", {asked}" if len(names) == 1 else f" that no other beats, to {asked}"
    print(f"\nof {len(runs)} run{'' if len(runs) == 1 else 's'} the {len(best)}{beaten}:\n{columns(rows, rules={1})}")
    path = Path(sweep.folder) / FILE
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("run", *names), *((from_here(Path(r.folder)), *r.values) for r in best)])
    print(f"written to {from_here(path)}")
