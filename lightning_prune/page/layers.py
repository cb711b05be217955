"""Layers, one by one: how sparse, which thresholds, which values, which masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_prune.page import words
from lightning_prune.page.charts import Line, bars, lines, map_of, two_histograms
from lightning_prune.page.figure import Figure, Table
from lightning_prune.page.over_time import whole
from lightning_prune.page.part import PICTURES, Card, Part, largest, left_out
from lightning_prune.page.run import Run
from lightning_prune.report import WeightReport

_LINES = 6
"""More layers than this are shown as a map: so many lines cannot be told apart."""


def layers(run: Run) -> Part:
    """Return sparsity and threshold by layer: in the end, and over steps."""
    found: list[Figure] = []
    shown = largest(run.layers)
    if shown:
        whole = sum(v.zeros for v in run.layers) / max(1, sum(v.size for v in run.layers))
        labels = [f"{100 * v.sparsity:.1f} %" for v in shown]
        said = [f"{words.share(v.sparsity)}, {v.zeros:,} of {v.size:,}" for v in shown]
        told = f"The sparsity of each layer in the end; that of all together is {words.share(whole)}."
        line = (whole, f"all: {words.share(whole)}")
        shares = [v.sparsity for v in shown]
        head = ("layer", "zeros")
        found.append(
            bars(
                "Sparsity by layer, in the end",
                told,
                [v.name for v in shown],
                shares,
                labels,
                "zeros, %",
                line,
                head,
                said,
            )
        )
    names = [v.name for v in shown] or _logged(run)
    found += _over_steps(run, names, "sparsity", "Sparsity by layer, over steps", "zeros, %", words.hundredths, 100.0)
    found += _over_steps(run, names, "threshold", "Threshold by layer, over steps", "score", words.number, 1.0)
    notes = left_out(run.layers, shown)
    return Part(found, [_table(run.layers)] if run.layers else (), notes=notes)


def weights(run: Run) -> Part:
    """Return how the values of each layer lie before and after, and what its mask looks like."""
    shown = largest(run.layers)
    names = {v.name: v for v in shown}
    if not names:  # the run has not come to an end: what there was before
        names = {name: WeightReport(name, (), 0, 0, 0.0, None) for name in list(run.details.weights)[:PICTURES]}
    cards: list[Card] = []
    for name, layer in names.items():
        seen = run.details.weights.get(name)
        if seen is None:
            continue
        values = two_histograms(name, seen.before, seen.after) if seen.before or seen.after else None
        said = layer.dimensions
        if layer.size:
            said += f" · {words.count(layer.size - layer.zeros)} of {words.count(layer.size)} left"
        cards.append(Card(layer, said, values, seen.mask))
    return Part(cards=cards, notes=left_out(run.layers, shown) if cards else ())


def _over_steps(
    run: Run, names: Sequence[str], what: str, title: str, y: str, show: Callable[[float], str], scale: float
) -> list[Figure]:
    curves = {name: run.curves.get(f"pruning/{what}/{name}") for name in names}
    last = max((step for curve in run.curves.values() for step, _ in curve), default=0)
    found = {n: [(step, scale * v) for step, v in whole(curve, last)] for n, curve in curves.items() if curve}
    if not found:
        return []
    told = f"{title}, of {len(found)} layers."
    if len(found) <= _LINES:
        short = words.short_names(list(found))
        drawn = [
            Line(name, points, True, 1 + i, i % 4)
            for i, (name, points) in enumerate(zip(short, found.values(), strict=True))
        ]
        within = (0, 104) if scale == 100 else None
        return [lines(title, told, drawn, show, y, within=within, aloud=True)]
    steps = sorted({step for points in found.values() for step, _ in points})
    values = [[Line("", points, True).at(step) or 0.0 for step in steps] for points in found.values()]
    return [map_of(title, told, list(found), steps, values, show, y.removesuffix(", %"))]


def _table(found: Sequence[WeightReport]) -> Table:
    rows = [
        [
            v.name,
            v.dimensions,
            f"{v.size:,}",
            f"{v.zeros:,}",
            words.share(v.sparsity),
            f"{v.threshold:.3g}",
        ]
        for v in found
    ]
    return Table(["layer", "shape", "weights", "zeros", "sparsity", "threshold"], rows)


def _logged(run: Run) -> list[str]:
    return [name.removeprefix("pruning/sparsity/") for name in run.curves if name.startswith("pruning/sparsity/")]
