"""What is left of a model: its units, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_prune.page.charts import bars
from lightning_prune.page.costs import costs
from lightning_prune.page.figure import Table
from lightning_prune.page.part import Part, joined, largest
from lightning_prune.page.run import Run


def left(run: Run) -> Part:
    """Return the units that are left, and what the model costs."""
    return joined(units(run), cost(run))


def units(run: Run) -> Part:
    """Return how many units each group has left."""
    groups, what = _groups(run)
    if not groups:
        return Part()
    labels = [f"{left:,} of {whole:,}" for left, whole in groups.values()]
    shares = [left / whole if whole else 0.0 for left, whole in groups.values()]
    all_left, all_there = (sum(pair[i] for pair in groups.values()) for i in (0, 1))
    told = f"{what} of each group: {all_left:,} of {all_there:,} are left in all."
    figure = bars(f"{what} left", told, list(groups), shares, labels, "left, %", None, ("group", "left"))
    return Part([figure])


def cost(run: Run) -> Part:
    """Return what the model costs, dense and pruned."""
    found, note = costs(run)
    if not found:
        return Part()
    labels = [f"{c.short[1]} of {c.short[0]}" for c in found]
    said = [f"{c.said[1]} of {c.said[0]}" for c in found]
    shares = [c.pruned / c.dense if c.dense else 1.0 for c in found]
    told = "; ".join(f"{c.name}: {label}" for c, label in zip(found, said, strict=True))
    names = [c.name.replace(" that are not zero", ", not 0").replace(" by weights, not 0", ", not 0") for c in found]
    figure = bars(
        "What is left of the dense model",
        told,
        names,
        [min(1.0, s) for s in shares],
        labels,
        "of the dense model, %",
        head=("", "pruned, of dense"),
        said=said,
    )
    table = Table(["", "dense", "pruned", "times less"], [[c.name, *c.said, c.times] for c in found])
    return Part([figure], [table], notes=[note])


def _groups(run: Run) -> tuple[dict[str, tuple[int, int]], str]:
    """Return group -> units left and units there were, and what the units are."""
    shrunk = run.report.get("shrink")
    if isinstance(shrunk, Mapping):
        return {g["name"]: (g["after"], g["before"]) for g in shrunk.get("groups", [])}, "Units"
    if run.rounds:
        first, last = run.rounds[0]["units"], run.rounds[-1]["units"]
        return {name: (pair[1], first[name][0]) for name, pair in last.items() if name in first}, "Units"
    seen = {v.name: run.details.weights[v.name].mask for v in largest(run.layers) if v.name in run.details.weights}
    return {name: (m.left[0], m.shape[0]) for name, m in seen.items() if m is not None}, "Rows with a weight"
