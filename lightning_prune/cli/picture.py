"""A run at a glance: sparsity over steps, sparsity by layer, accuracy over steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_prune.cli.outputs import Curves
from lightning_prune.report import Report

_BLUE, _ORANGE, _GREEN, _GREY = "#3465a4", "#dd7711", "#4e9a06", "#888888"
_LAYERS = 40
"""More bars than this cannot be read: the largest layers are shown then."""


def save_picture(report: Report, curves: Curves, folder: Path, title: str) -> Path:
    """Write `report.png`."""
    from matplotlib.figure import Figure

    rows = min(len(report.weights), _LAYERS)
    figure = Figure(figsize=(14, max(4.2, 1.4 + 0.24 * rows)), layout="constrained", dpi=110)
    over_steps, by_layer, quality = figure.subplots(1, 3)
    _sparsity(over_steps, curves, report)
    _layers(by_layer, report)
    _quality(quality, curves)
    for axis in (over_steps, by_layer, quality):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    path = folder / "report.png"
    figure.savefig(path)
    return path


def _sparsity(axis: Any, curves: Curves, report: Report) -> None:
    last = max((step for curve in curves.values() for step, _ in curve), default=0)
    drawn = {"pruning/sparsity": (_BLUE, 4.0, "reached"), "pruning/target_sparsity": (_ORANGE, 1.4, "target")}
    for name, (color, width, label) in drawn.items():
        found = curves.get(name)
        if found:
            steps, shares = zip(*[(0, 0.0), *found, (last, found[-1][1])], strict=True)
            percents = [100 * share for share in shares]
            axis.step(steps, percents, where="post", color=color, linewidth=width, label=label)
    axis.axhline(100 * report.final_sparsity, color=_GREY, linewidth=0.8, linestyle=":")
    axis.set(title="sparsity over steps", xlabel="optimizer step", ylabel="zeros among prunable weights, %")
    axis.set_ylim(0, 104)
    axis.grid(alpha=0.25)
    _legend(axis, "lower right")


def _layers(axis: Any, report: Report) -> None:
    largest = sorted(report.weights, key=lambda weight: -weight.size)[:_LAYERS]
    weights = [weight for weight in report.weights if weight in largest]
    names = [_shorten(weight.name) for weight in weights]
    places = range(len(weights))
    axis.barh(places, [100] * len(weights), color="#eeeeee", height=0.72)
    axis.barh(places, [100 * weight.sparsity for weight in weights], color=_BLUE, height=0.72)
    for place, weight in enumerate(weights):
        text = f"{100 * weight.sparsity:.1f} %  of {weight.size:,}"
        inside = weight.sparsity > 0.5
        at = {"x": 1.5 if inside else 100 * weight.sparsity + 1.5, "color": "white" if inside else "black"}
        axis.text(y=place, s=text, va="center", fontsize=8, **at)
    axis.axvline(100 * report.sparsity, color=_ORANGE, linewidth=1.4, label=f"all: {100 * report.sparsity:.2f} %")
    axis.set_yticks(places, names, fontsize=8)
    axis.invert_yaxis()
    left_out = len(report.weights) - len(weights)
    axis.set(
        title="sparsity by layer" + (f" ({left_out} smaller ones left out)" if left_out else ""), xlabel="zeros, %"
    )
    axis.set_xlim(0, 100)
    axis.legend(loc="upper left", bbox_to_anchor=(0.0, -0.06), frameon=False, fontsize=9)


def _quality(axis: Any, curves: Curves) -> None:
    kind = "accuracy" if any(name.endswith("accuracy") for name in curves) else "loss"
    scale = 100 if kind == "accuracy" else 1
    shown = [name for name in curves if name.endswith(kind) and not name.startswith("pruning/")]
    colors = {"train": _GREY, "val": _BLUE, "test": _GREEN}
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


def _shorten(name: str) -> str:
    return name if len(name) <= 34 else f"...{name[-31:]}"
