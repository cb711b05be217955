"""Curves over sparsity, a panel for each metric."""

from __future__ import annotations

from pathlib import Path

from lightning_prune.cli.curves import Curve, Curves, mean

_STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
_PALETTES = (("tab10", 10), ("tab20", 20))
_PANELS = 4


def save_picture(curves: Curves, file: Path, title: str) -> Path:
    """Write a PNG. Curves that differ in their last word alone share a colour, and have a line style each.

    A line goes through the means over seeds, in a band from the least to the most.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    metrics = curves.metrics[:_PANELS]
    rows = -(-len(curves.curves) // 2)
    figure = Figure(figsize=(5.5 * len(metrics), 4.3 + 0.22 * rows), layout="constrained", dpi=100)
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    stems, ends = _ranks(curves.curves)
    palette = colormaps[next((name for name, most in _PALETTES if len(stems) <= most), "viridis")]
    palette = palette.resampled(max(10, len(stems)))
    for axis, metric in zip(axes, metrics, strict=True):
        scale = 100 if metric.endswith("accuracy") else 1
        for curve in curves.curves:
            points = curve.points(metric)
            if not points:
                continue
            color = palette(stems[_stem(curve)])
            line, marker = _STYLES[ends[_end(curve)] % len(_STYLES)]
            x = [100 * sparsity for sparsity, _ in points]
            y = [scale * mean(values) for _, values in points]
            axis.plot(x, y, line, marker=marker, color=color, markersize=4, linewidth=1.5, label=curve.label)
            if any(len(values) > 1 for _, values in points):
                low, high = ([scale * pick(values) for _, values in points] for pick in (min, max))
                axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axis.set(xlabel="zeros among prunable weights, %", title=f"{metric}{', %' if scale == 100 else ''}")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    named = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.savefig(file)
    return file


def _ranks(curves: tuple[Curve, ...]) -> tuple[dict[str, int], dict[str, int]]:
    stems = dict.fromkeys(_stem(curve) for curve in curves)
    ends = dict.fromkeys(_end(curve) for curve in curves)
    return {stem: i for i, stem in enumerate(stems)}, {end: i for i, end in enumerate(ends)}


def _stem(curve: Curve) -> str:
    return "" if len(curve.names) < 2 and not curve.names else ", ".join(curve.names[:-1] or curve.names)


def _end(curve: Curve) -> str:
    return curve.names[-1] if len(curve.names) > 1 else ""
