"""A run at a glance: sparsity over steps, sparsity by layer, accuracy over steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_prune.cli.outputs import Curves
from lightning_prune.report import Report
from lightning_prune.shown import new_figure
from lightning_prune.shown.picture import BLUE, GREEN, GREY, ORANGE, height_of, plain_spines


def save_picture(report: Report, curves: Curves, folder: Path, title: str) -> Path:
    """Write `report.png`."""
    figure = new_figure(14, height_of(len(report.weights)))
    over_steps, by_layer, quality = figure.subplots(1, 3)
    _sparsity(over_steps, curves, report)
    report.draw(by_layer)
    _quality(quality, curves)
    plain_spines(over_steps, quality)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    path = folder / "report.png"
    figure.savefig(path)
    return path


def _sparsity(axis: Any, curves: Curves, report: Report) -> None:
    last = max((step for curve in curves.values() for step, _ in curve), default=0)
    drawn = {"pruning/sparsity": (BLUE, 4.0, "reached"), "pruning/target_sparsity": (ORANGE, 1.4, "target")}
    for name, (color, width, label) in drawn.items():
        found = curves.get(name)
        if found:
            steps, shares = zip(*[(0, 0.0), *found, (last, found[-1][1])], strict=True)
            percents = [100 * share for share in shares]
            axis.step(steps, percents, where="post", color=color, linewidth=width, label=label)
    axis.axhline(100 * report.final_sparsity, color=GREY, linewidth=0.8, linestyle=":")
    axis.set(title="sparsity over steps", xlabel="optimizer step", ylabel="zeros among prunable weights, %")
    axis.set_ylim(0, 104)
    axis.grid(alpha=0.25)
    _legend(axis, "lower right")


def _quality(axis: Any, curves: Curves) -> None:
    kind = "accuracy" if any(name.endswith("accuracy") for name in curves) else "loss"
    scale = 100 if kind == "accuracy" else 1
    shown = [name for name in curves if name.endswith(kind) and not name.startswith("pruning/")]
    colors = {"train": GREY, "val": BLUE, "test": GREEN}
    for name in sorted(shown, key=lambda name: [*colors, _stage(name)].index(_stage(name))):
        steps, values = zip(*curves[name], strict=True)
        color = colors.get(_stage(name))
        marker = "D" if len(steps) == 1 else None
        label = f"{name}  {scale * values[-1]:.2f}" + (" %" if scale == 100 else "")
        axis.plot(steps, [scale * v for v in values], color=color, marker=marker, linewidth=1.6, label=label)
    axis.set(title=f"{kind} over steps", xlabel="optimizer step", ylabel=f"{kind}, %" if scale == 100 else kind)
    axis.grid(alpha=0.25)
    _legend(axis, "best")


def _stage(name: str) -> str:
    return name.partition("/")[0]


def _legend(axis: Any, place: str) -> None:
    if axis.get_legend_handles_labels()[1]:
        axis.legend(loc=place, frameon=False, fontsize=9)
