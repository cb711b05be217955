"""Accuracy and size against the threshold on learned probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BLUE, _ORANGE, _GREEN, _GREY = "#3465a4", "#dd7711", "#4e9a06", "#888888"


def save_picture(points: Sequence[Any], path: Path, title: str) -> Path:
    """Write the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=110)
    quality, size = figure.subplots(1, 2)
    thresholds = [point.threshold for point in points]
    names = list(dict.fromkeys(name for point in points for name in point.metrics))
    kind = "accuracy" if any(name.endswith("accuracy") for name in names) else "loss"
    scale = 100 if kind == "accuracy" else 1
    for name in (name for name in names if name.endswith(kind)):
        values = [scale * point.metrics[name] for point in points]
        color = {"val": _BLUE, "test": _GREEN}.get(name.partition("/")[0], _GREY)
        quality.plot(thresholds, values, marker="o", color=color, linewidth=1.6, label=name)
    quality.set(title=kind, xlabel="T", ylabel=kind + (", %" if scale == 100 else ""))
    for name, color, values in (
        ("parameters", _BLUE, [point.parameters for point in points]),
        ("MACs", _ORANGE, [point.macs for point in points]),
        ("units", _GREY, [point.units for point in points]),
    ):
        shares = [100 * value / max(1, values[0]) for value in values]
        label = f"{name}: {values[0]:,} to {values[-1]:,}"
        size.plot(thresholds, shares, marker="o", color=color, linewidth=1.6, label=label)
    size.set(title=f"size, of that at T = {thresholds[0]:g}", xlabel="T", ylabel="%")
    size.set_ylim(0, 104)
    for axis in (quality, size):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="best", frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.savefig(path)
    return path
