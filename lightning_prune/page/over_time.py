"""How sparse and how good a model was, over steps or rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_prune.page import words
from lightning_prune.page.charts import Line, lines
from lightning_prune.page.figure import Figure
from lightning_prune.page.part import Part, joined
from lightning_prune.page.run import Run
from lightning_prune.page.story import asked_for

_STAGES = {"train": 6, "val": 1, "test": 2}
"""Stage -> the number of its colour."""


def over_time(run: Run) -> Part:
    """Return how sparse and how good the model was, over steps or rounds."""
    return joined(schedule(run), quality(run))


def schedule(run: Run) -> Part:
    """Return the sparsity asked for and reached, over steps."""
    if run.rounds:
        return _sizes_by_round(run)
    reached, asked = run.curves.get("pruning/sparsity"), run.curves.get("pruning/target_sparsity")
    if not reached:
        return Part()
    last = max(step for curve in run.curves.values() for step, _ in curve)
    drawn = [Line("reached", whole(reached, last), True, 1)]
    if asked:
        drawn.append(Line("asked for", whole(asked, last), True, 2, 1))
    told = f"The sparsity rises to {words.share(reached[-1][1])} at step {reached[-1][0]:,}"
    final = asked_for(run)
    told += f"; {words.share(final)} was asked for." if final is not None else "."
    figure = lines(
        "Sparsity over steps",
        told,
        percents(drawn),
        words.hundredths,
        "zeros among prunable weights, %",
        within=(0, 104),
    )
    return Part([figure])


def quality(run: Run) -> Part:
    """Return the metrics over steps, or over rounds."""
    curves = _round_metrics(run) if run.rounds else run.curves
    kinds = {"accuracy": "Accuracy", "loss": "Loss"}
    figures: list[Figure] = []
    for kind, title in kinds.items():
        names = [name for name in curves if name.endswith(kind) and not name.startswith("pruning/")]
        names.sort(key=lambda name: [*_STAGES, name.partition("/")[0]].index(name.partition("/")[0]))
        share = words.is_share(kind)
        drawn = [
            Line(name.replace("/", " "), curves[name], color=_STAGES.get(name.partition("/")[0], 3 + i % 3))
            for i, name in enumerate(names)
        ]
        if drawn:
            ends = ", ".join(f"{line.name} {words.value_of(kind, line.points[-1][1])}" for line in drawn)
            x = "round" if run.rounds else "optimizer step"
            show = words.hundredths if share else words.number
            drawn = percents(drawn) if share else drawn
            unit = f"{kind}, %" if share else kind
            figures.append(lines(f"{title} over {x.split()[-1]}s", f"In the end: {ends}.", drawn, show, unit, x))
    return Part(figures)


def whole(points: Sequence[tuple[float, float]], last: float) -> list[tuple[float, float]]:
    """Return a curve from the beginning to the end of a run."""
    begun = [] if points[0][0] == 0 else [(0.0, 0.0)]
    return [*begun, *points, *([(last, points[-1][1])] if points[-1][0] < last else [])]


def _sizes_by_round(run: Run) -> Part:
    first = run.rounds[0]
    of_first = {
        "parameters": [each["parameters"] / max(1, first["parameters"]) for each in run.rounds],
        "MACs": [each["macs"] / max(1, first["macs"]) for each in run.rounds],
        "units": [_units(each) / max(1, _units(first)) for each in run.rounds],
    }
    drawn = [Line(name, list(enumerate(shares)), False, 1 + i, i) for i, (name, shares) in enumerate(of_first.items())]
    told = "; ".join(f"{words.share(shares[-1])} of the {name} are left" for name, shares in of_first.items()) + "."
    figure = lines(
        "Size, round by round", told, percents(drawn), words.hundredths, "of the dense model, %", "round", (0, 104)
    )
    stopped = run.report.get("stopped")
    return Part([figure], notes=[str(stopped)] if stopped else ())


def _units(found: Mapping[str, Any]) -> int:
    return sum(pair[1] for pair in found["units"].values())


def _round_metrics(run: Run) -> dict[str, list[tuple[int, float]]]:
    names = dict.fromkeys(name for each in run.rounds for name in each["metrics"])
    return {
        name: [(i, each["metrics"][name]) for i, each in enumerate(run.rounds) if name in each["metrics"]]
        for name in names
    }


def percents(drawn: Sequence[Line]) -> list[Line]:
    """Return lines of shares as lines of percentages."""
    return [Line(v.name, [(s, 100 * y) for s, y in v.points], v.held, v.color, v.dash) for v in drawn]
