"""The loss against the sparsity of each layer alone, and the sparsities that a plan makes of it."""

from __future__ import annotations

from pathlib import Path

from lightning_prune.cli.sensitivity_curves import Sensitivity
from lightning_prune.shown.picture import draw_shares, height_of, new_figure, plain_spines, shorten

_NAMED = 20
"""More layers than this are not named beside the curves."""


def save_picture(result: Sensitivity, file: Path, title: str) -> Path:
    """Write a PNG."""
    from matplotlib import colormaps

    figure = new_figure(14, height_of(len(result.sizes)))
    curves, shares = figure.subplots(1, 2)
    palette = colormaps["tab10" if len(result.sizes) <= 10 else "viridis"].resampled(max(10, len(result.sizes)))
    for number, (name, points) in enumerate(result.points.items()):
        x = [0.0, *(100 * point.gone / result.sizes[name] for point in points)]
        y = [result.dense[result.loss], *(point.metrics[result.loss] for point in points)]
        curves.plot(x, y, marker="o", markersize=3, linewidth=1.4, color=palette(number), label=shorten(name))
        curves.plot(100 * result.shares[name], _at(x, y, 100 * result.shares[name]), marker="x", color=palette(number))
    curves.set(title=f"{result.loss}, one layer pruned alone (x: the plan)", xlabel=f"{result.unit} gone, %")
    curves.grid(alpha=0.25)
    plain_spines(curves, shares)
    if len(result.sizes) <= _NAMED:
        curves.legend(loc="best", frameon=False, fontsize=8)
    names, sizes = list(result.sizes), list(result.sizes.values())
    planned = [result.shares[name] for name in names]
    draw_shares(shares, names, planned, sizes, result.reached, f"the plan: share of {result.unit} gone")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.savefig(file)
    return file


def _at(x: list[float], y: list[float], where: float) -> float:
    for low, high, before, after in zip(x, x[1:], y, y[1:], strict=False):
        if where <= high:
            return before + (after - before) * (where - low) / (high - low)
    return y[-1]
