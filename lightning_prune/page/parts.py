"""What a page says of one run, section by section."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_prune.page import words
from lightning_prune.page.charts import Line, bars, lines, map_of, two_histograms
from lightning_prune.page.costs import costs
from lightning_prune.page.figure import Figure, Table
from lightning_prune.page.mask import Mask
from lightning_prune.page.run import Layer, Run
from lightning_prune.page.story import asked_for
from lightning_prune.shown import by_reason

_LINES = 6
"""More layers than this are shown as a map: so many lines cannot be told apart."""
_CARDS = 40
_STAGES = {"train": 6, "val": 1, "test": 2}
"""Stage -> the number of its colour."""


@dataclass(frozen=True)
class Card:
    """One layer: its name, what is said of it, how its values lie, and its mask."""

    layer: Layer
    said: str
    values: Figure | None
    mask: Mask | None


@dataclass(frozen=True)
class Code:
    """A text to copy: what it is, and whether it is shown at once."""

    name: str
    text: str
    shown: bool


@dataclass(frozen=True)
class Part:
    """What a section says of one run."""

    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    cards: Sequence[Card] = ()
    notes: Sequence[str] = ()
    codes: Sequence[Code] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.figures or self.tables or self.cards or self.notes or self.codes)


@dataclass(frozen=True)
class Section:
    """A section: what is said of a run in it, and what it is called."""

    key: str
    title: str
    of: Callable[[Run], Part] = field(repr=False)


def schedule(run: Run) -> Part:
    """Return the sparsity asked for and reached, over steps."""
    if run.rounds:
        return _sizes_by_round(run)
    reached, asked = run.curves.get("pruning/sparsity"), run.curves.get("pruning/target_sparsity")
    if not reached:
        return Part()
    last = max(step for curve in run.curves.values() for step, _ in curve)
    drawn = [Line("reached", _whole(reached, last), True, 1)]
    if asked:
        drawn.append(Line("asked for", _whole(asked, last), True, 2, 1))
    told = f"The sparsity rises to {words.share(reached[-1][1])} at step {reached[-1][0]:,}"
    final = asked_for(run)
    told += f"; {words.share(final)} was asked for." if final is not None else "."
    figure = lines(
        "Sparsity over steps", told, _percent(drawn), _share, "zeros among prunable weights, %", within=(0, 104)
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
            show = _share if share else _number
            drawn = _percent(drawn) if share else drawn
            unit = f"{kind}, %" if share else kind
            figures.append(lines(f"{title} over {x.split()[-1]}s", f"In the end: {ends}.", drawn, show, unit, x))
    return Part(figures)


def layers(run: Run) -> Part:
    """Return sparsity and threshold by layer: in the end, and over steps."""
    found: list[Figure] = []
    shown = _largest(run.layers)
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
    found += _over_steps(run, names, "sparsity", "Sparsity by layer, over steps", "zeros, %", _share, 100.0)
    found += _over_steps(run, names, "threshold", "Threshold by layer, over steps", "score", _number, 1.0)
    notes = _left_out(run.layers, shown)
    return Part(found, [_table(run.layers)] if run.layers else (), notes=notes)


def weights(run: Run) -> Part:
    """Return how the values of each layer lie before and after, and what its mask looks like."""
    shown = _largest(run.layers)
    names = {v.name: v for v in shown}
    if not names:  # the run has not come to an end: what there was before
        names = {name: Layer(name, (), 0, 0, 0.0) for name in list(run.details.weights)[:_CARDS]}
    cards: list[Card] = []
    for name, layer in names.items():
        seen = run.details.weights.get(name)
        if seen is None:
            continue
        values = two_histograms(name, seen.before, seen.after) if seen.before or seen.after else None
        said = "x".join(map(str, layer.shape))
        if layer.size:
            said += f" · {words.count(layer.size - layer.zeros)} of {words.count(layer.size)} left"
        cards.append(Card(layer, said, values, seen.mask))
    return Part(cards=cards, notes=_left_out(run.layers, shown) if cards else ())


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


def over_time(run: Run) -> Part:
    """Return how sparse and how good the model was, over steps or rounds."""
    return joined(schedule(run), quality(run))


def left(run: Run) -> Part:
    """Return the units that are left, and what the model costs."""
    return joined(units(run), cost(run))


def joined(*parts: Part) -> Part:
    """Return several parts as one."""
    return Part(
        [each for part in parts for each in part.figures],
        [each for part in parts for each in part.tables],
        [each for part in parts for each in part.cards],
        [each for part in parts for each in part.notes],
        [each for part in parts for each in part.codes],
    )


def config(run: Run) -> Part:
    """Return the command that repeats the run, its config, and the versions that decide about its numbers."""
    codes = [Code("The command that repeats it", run.command, True), Code("Its config", run.config, False)]
    versions = run.report.get("versions")
    rows = [[str(name), str(value)] for name, value in versions.items()] if isinstance(versions, Mapping) else []
    return Part(tables=[Table(["made with", "version"], rows)] if rows else (), codes=codes)


def absent(run: Run) -> Part:
    """Return what is left whole and why, and what the page cannot show."""
    skipped = run.report.get("skipped")
    reasons = {str(n): str(why) for n, why in skipped.items()} if isinstance(skipped, Mapping) else {}
    whole = [f"L{line[1:]}." for line in by_reason("left whole", reasons)]
    return Part(notes=[*whole, *(f"Not shown: {each}." for each in run.missing)])


SECTIONS = (
    Section("steps", "Over time", over_time),
    Section("layers", "Layer by layer", layers),
    Section("weights", "Weights and masks", weights),
    Section("left", "What is left", left),
    Section("config", "Do it again", config),
    Section("absent", "Left whole, and not shown", absent),
)


def _over_steps(
    run: Run, names: Sequence[str], what: str, title: str, y: str, show: Callable[[float], str], scale: float
) -> list[Figure]:
    curves = {name: run.curves.get(f"pruning/{what}/{name}") for name in names}
    last = max((step for curve in run.curves.values() for step, _ in curve), default=0)
    found = {n: [(step, scale * v) for step, v in _whole(curve, last)] for n, curve in curves.items() if curve}
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


def _sizes_by_round(run: Run) -> Part:
    first = run.rounds[0]
    of_first = {
        "parameters": [each["parameters"] / max(1, first["parameters"]) for each in run.rounds],
        "MACs": [each["macs"] / max(1, first["macs"]) for each in run.rounds],
        "units": [_units(each) / max(1, _units(first)) for each in run.rounds],
    }
    drawn = [Line(name, list(enumerate(shares)), False, 1 + i, i) for i, (name, shares) in enumerate(of_first.items())]
    told = "; ".join(f"{words.share(shares[-1])} of the {name} are left" for name, shares in of_first.items()) + "."
    figure = lines("Size, round by round", told, _percent(drawn), _share, "of the dense model, %", "round", (0, 104))
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


def _groups(run: Run) -> tuple[dict[str, tuple[int, int]], str]:
    """Return group -> units left and units there were, and what the units are."""
    shrunk = run.report.get("shrink")
    if isinstance(shrunk, Mapping):
        return {g["name"]: (g["after"], g["before"]) for g in shrunk.get("groups", [])}, "Units"
    if run.rounds:
        first, last = run.rounds[0]["units"], run.rounds[-1]["units"]
        return {name: (pair[1], first[name][0]) for name, pair in last.items() if name in first}, "Units"
    seen = {v.name: run.details.weights[v.name].mask for v in _largest(run.layers) if v.name in run.details.weights}
    return {name: (m.left[0], m.shape[0]) for name, m in seen.items() if m is not None}, "Rows with a weight"


def _table(found: Sequence[Layer]) -> Table:
    rows = [
        [
            v.name,
            "x".join(map(str, v.shape)),
            f"{v.size:,}",
            f"{v.zeros:,}",
            words.share(v.sparsity),
            f"{v.threshold:.3g}",
        ]
        for v in found
    ]
    return Table(["layer", "shape", "weights", "zeros", "sparsity", "threshold"], rows)


def _largest(found: Sequence[Layer]) -> list[Layer]:
    largest = {v.name for v in sorted(found, key=lambda v: -v.size)[:_CARDS]}
    return [v for v in found if v.name in largest]


def _left_out(every: Sequence[Layer], shown: Sequence[Layer]) -> list[str]:
    left = len(every) - len(shown)
    return (
        [f"Pictures show the {len(shown)} largest layers; {left} smaller ones are in the table alone."] if left else []
    )


def _logged(run: Run) -> list[str]:
    return [name.removeprefix("pruning/sparsity/") for name in run.curves if name.startswith("pruning/sparsity/")]


def _whole(points: Sequence[tuple[float, float]], last: float) -> list[tuple[float, float]]:
    """Return a curve from the beginning to the end of a run."""
    begun = [] if points[0][0] == 0 else [(0.0, 0.0)]
    return [*begun, *points, *([(last, points[-1][1])] if points[-1][0] < last else [])]


def _percent(drawn: Sequence[Line]) -> list[Line]:
    return [Line(v.name, [(s, 100 * y) for s, y in v.points], v.held, v.color, v.dash) for v in drawn]


def _share(value: float) -> str:
    return f"{value:.2f} %"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
