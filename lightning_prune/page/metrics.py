"""The curves that a run has logged as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

Curves = dict[str, list[tuple[int, float]]]
"""Name of a metric -> its values over steps."""


def read_metrics(folder: Path) -> Curves:
    """Return the curves in `metrics.csv`, none if there is no such file.

    A last line that was cut, as of a run that was killed while it wrote, is left out.

    Raises:
        ValueError: another line is damaged.
    """
    path = folder / "metrics.csv"
    curves: Curves = {}
    if not path.is_file():
        return curves
    with path.open(encoding="utf-8", newline="") as stream:
        text = stream.read()
    whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
    for row in csv.DictReader(whole):
        for name, value in row.items():
            if not value or name in ("step", "epoch"):
                continue
            if row.get("step") is None:
                raise ValueError(f"{path}: a line is shorter than its header")
            curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return curves
