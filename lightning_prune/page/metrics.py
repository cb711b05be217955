"""The curves that a run has logged as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

Curves = dict[str, list[tuple[int, float]]]
"""Name of a metric -> its values over steps."""


def read_metrics(folder: Path) -> Curves:
    """Return the curves in `metrics.csv`, none if there is no such file."""
    path = folder / "metrics.csv"
    curves: Curves = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return curves
