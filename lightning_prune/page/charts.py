"""The kinds of pictures: lines over steps, bars, a map of layers over steps, two histograms."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_prune.page.figure import DASHES, INK, PAPER, SERIES, SOFT, Canvas, Entry, Figure, Stop, Table, canvas
from lightning_prune.page.histogram import Histogram
from lightning_prune.page.words import count, short, short_names, thinned

_WIDTH = 330.0
_STOPS, _ROWS, _COLUMNS = 160, 40, 120
_BLUE = (0.23, 0.51, 0.77)
"""Of middling lightness: a picture of pixels does not know whether it lies on white or on black."""


@dataclass(frozen=True)
class Line:
    """Values over steps.

    Attributes:
        name: what they are.
        points: (step, value), ascending.
        held: whether a value holds until the next, so that the line goes in stairs.
        color: the number of its colour.
        dash: the number of its dash.
    """

    name: str
    points: Sequence[tuple[float, float]]
    held: bool = False
    color: int = 1
    dash: int = 0

    def at(self, step: float) -> float | None:
        """Return the value at a step; None where there is none."""
        steps = [point for point, _ in self.points]
        place = bisect.bisect_right(steps, step) - 1
        if place < 0 or (not self.held and steps[place] != step):
            return None
        return self.points[place][1]


def lines(
    title: str,
    told: str,
    drawn: Sequence[Line],
    shown: Callable[[float], str],
    y: str,
    x: str = "optimizer step",
    within: tuple[float, float] | None = None,
    log: bool = False,
    aloud: bool = False,
) -> Figure:
    """Return lines over steps.

    Args:
        title: what they show.
        told: the same for people who do not see it.
        drawn: the lines.
        shown: a value for people.
        y: what the values are, and in which unit.
        x: what the steps are.
        within: the least and the greatest value of the axis.
        log: whether equal factors are as far apart.
        aloud: whether `told` is for those alone.
    """
    drawn = [Line(v.name, _finite(v.points, log), v.held, v.color, v.dash) for v in drawn]
    drawn = [line for line in drawn if line.points]
    on = canvas(_WIDTH, 216, (38, 14, 35, 26))
    for line in drawn:
        steps, values = zip(*line.points, strict=True)
        style: dict[str, Any] = {"color": SERIES[line.color - 1], "linestyle": DASHES[line.dash], "linewidth": 1.8}
        if len(steps) == 1:
            dot = style | {"linewidth": 8, "solid_capstyle": "round", "linestyle": "solid"}
            on.axis.plot([*steps, *steps], [*values, *values], **dot)
        else:
            on.axis.plot(steps, values, drawstyle="steps-post" if line.held else "default", **style)
    _labelled(on, x, y)
    if log:
        on.axis.set_yscale("log")
        on.axis.minorticks_off()
    if within is not None:
        on.axis.set_ylim(*within)
    on.axis.set_xlim(left=0)
    _few_ticks(on, log)
    steps = sorted({step for line in drawn for step, _ in line.points})
    stops = [_stop(on, drawn, steps[i], shown, x) for i in thinned(len(steps), _STOPS)]
    rows = [
        [count(steps[i]), *("" if (v := line.at(steps[i])) is None else shown(v) for line in drawn)]
        for i in thinned(len(steps), _ROWS)
    ]
    note = f"{len(rows)} of {len(steps)} points, evenly." if len(rows) < len(steps) else ""
    legend = [Entry(line.color, line.dash, line.name, len(line.points) == 1) for line in drawn]
    table = Table([x, *(line.name for line in drawn)], rows, note)
    return Figure(title, told, on.svg(), on.size, stops, True, legend, table, aloud)


def bars(
    title: str,
    told: str,
    names: Sequence[str],
    shares: Sequence[float],
    labels: Sequence[str],
    x: str,
    line: tuple[float, str] | None = None,
    head: Sequence[str] = ("", ""),
    said: Sequence[str] = (),
) -> Figure:
    """Return a bar a name, from 0 to 100 %.

    Args:
        title: what they show.
        told: the same for people who do not see it.
        names: from above to below.
        shares: from 0 to 1.
        labels: what stands at each bar.
        x: what the shares are of.
        line: a share that is marked, and what it is.
        head: what names and labels are.
        said: what a pointer finds at each bar; empty for the labels.
    """
    shorter = short_names(names)
    left = 14 + 6.4 * max(map(len, shorter), default=0)
    height = 26 * len(names) + 40 + (14 if line else 0)
    on = canvas(_WIDTH, height, (left, 16, 36, 4 + (14 if line else 0)))
    places = range(len(names))
    on.axis.barh(places, [100] * len(names), color=SERIES[5], alpha=0.16, height=0.66)
    on.axis.barh(places, [100 * share for share in shares], color=SERIES[0], height=0.66)
    for place, share in zip(places, shares, strict=True):
        inside = share * (_WIDTH - left - 16) > 6 * len(labels[place]) + 10
        on.axis.text(
            100 * share + (-2 if inside else 2),
            place,
            labels[place],
            ha="right" if inside else "left",
            va="center",
            fontsize=10.5,
            color=PAPER if inside else INK,
        )
    if line:
        on.axis.axvline(100 * line[0], color=SERIES[1], linewidth=1.6, linestyle=DASHES[1])
        side = "right" if line[0] > 0.6 else "left"
        on.axis.text(100 * line[0], -0.62, line[1], ha=side, va="bottom", fontsize=10.5, color=SOFT)
    on.axis.set_ylim(len(names) - 0.5, -0.5)
    on.axis.set_xlim(0, 100)
    on.axis.set_yticks(list(places), shorter, color=INK)
    on.axis.set_xticks([0, 25, 50, 75, 100])
    on.axis.set_xlabel(x)
    on.axis.spines[["left", "bottom"]].set_visible(False)
    found = [
        Stop(*on.place(100 * share, place), f"{name}: {label}")
        for place, (name, share, label) in enumerate(zip(names, shares, said or labels, strict=True))
    ]
    table = Table(head, [list(pair) for pair in zip(names, said or labels, strict=True)])
    return Figure(title, told, on.svg(), on.size, found, False, (), table, aloud=True)


def map_of(
    title: str,
    told: str,
    names: Sequence[str],
    steps: Sequence[float],
    values: Sequence[Sequence[float]],
    shown: Callable[[float], str],
    y: str,
) -> Figure:
    """Return layers over steps, one below the other: the more colour, the larger the value.

    Args:
        title: what it shows.
        told: the same for people who do not see it.
        names: of the layers.
        steps: from left to right.
        values: layers x steps, from 0 up; colour goes up to the largest.
        shown: a value for people.
        y: what the values are.
    """
    most = max((v for row in values for v in row if math.isfinite(v)), default=1.0) or 1.0
    shorter = short_names(names)
    left = 14 + 6.0 * max(map(len, shorter), default=0)
    row = 15.0
    on = canvas(_WIDTH, row * len(names) + 66, (left, 14, 40, 26))
    end = steps[-1] * 1.02 + 1
    columns = [steps[0] + (end - steps[0]) * i / _COLUMNS for i in range(_COLUMNS)]
    at = [max(0, bisect.bisect_right(steps, step) - 1) for step in columns]
    opaque = [[max(0.0, v[i] / most) if math.isfinite(v[i]) else 0.0 for i in at] for v in values]
    picture = [[(*_BLUE, 0.05 + 0.95 * share) for share in each] for each in opaque]
    on.axis.imshow(picture, interpolation="none", aspect="auto", extent=(steps[0], end, len(names) - 0.5, -0.5))
    on.axis.set_ylim(len(names) - 0.5, -0.5)
    on.axis.set_xlim(steps[0], end)
    on.axis.set_yticks(list(range(len(names))), shorter, color=INK, fontsize=10)
    on.axis.set_xlabel("optimizer step")
    on.axis.spines[["left", "bottom"]].set_visible(False)
    on.axis.locator_params("x", nbins=5, integer=True)
    on.axis.set_title(f"{y}: pale is 0, full is {shown(most)}", loc="right", fontsize=11, color=SOFT, pad=8)
    places = thinned(len(steps), 16)
    stops = [
        Stop(*on.place(steps[i], place), f"{name}, step {count(steps[i])}: {shown(values[place][i])}")
        for place, name in enumerate(names)
        for i in places
    ]
    few = thinned(len(steps), 6)
    table = Table(
        ["layer", *(f"step {count(steps[i])}" for i in few)],
        [[name, *(shown(values[place][i]) for i in few)] for place, name in enumerate(names)],
        f"{len(few)} of {len(steps)} updates." if len(few) < len(steps) else "",
    )
    return Figure(title, told, on.svg(), on.size, stops, False, (), table, aloud=True)


def two_histograms(name: str, before: Histogram | None, after: Histogram | None) -> Figure:
    """Return how the values of a weight lay, and how those lie that are left."""
    both = [each for each in (before, after) if each is not None]
    exponent = max(each.exponent for each in both)
    drawn = [
        (each.coarser(exponent), number, label)
        for number, (each, label) in enumerate(((before, "before"), (after, "after, those left")))
        if each is not None
    ]
    on = canvas(_WIDTH, 176, (42, 14, 35, 26))
    for each, number, _ in drawn:
        filled: dict[str, Any] = {"fill": True, "alpha": 0.28} if number == 0 else {"linewidth": 1.8}
        on.axis.stairs(each.counts, each.edges, color=SERIES[5 if number == 0 else 0], **filled)
    _labelled(on, "value of a weight", "weights in a bin")
    on.axis.set_ylim(bottom=0)
    _few_ticks(on, False)
    width = 2.0**exponent
    counts = [{each.first + i: n for i, n in enumerate(each.counts)} for each, _, _ in drawn]
    first, last = min(min(c) for c in counts), max(max(c) for c in counts)
    top = [max(c.get(i, 0) for c in counts) for i in range(first, last + 1)]
    labels = [label for _, _, label in drawn]
    texts = [
        ", ".join(f"{label} {count(c.get(i, 0))}" for label, c in zip(labels, counts, strict=True))
        for i in range(first, last + 1)
    ]
    spans = [f"{i * width:.3g} to {(i + 1) * width:.3g}" for i in range(first, last + 1)]
    stops = [
        Stop(*on.place((first + i + 0.5) * width, top[i]), f"{span}: {text}")
        for i, (span, text) in enumerate(zip(spans, texts, strict=True))
    ]
    rows = [[span, *(count(c.get(first + i, 0)) for c in counts)] for i, span in enumerate(spans) if top[i]]
    told = f"How the values of {name} lay before pruning and lie after it, zeros left out."
    legend = [Entry(6 if number == 0 else 1, 0, label) for _, number, label in drawn]
    return Figure(
        "values", told, on.svg(), on.size, stops, True, legend, Table(["value", *labels], rows, "Zeros left out.")
    )


def _stop(on: Canvas, drawn: Sequence[Line], step: float, shown: Callable[[float], str], x: str) -> Stop:
    found = [(line.name, value) for line in drawn if (value := line.at(step)) is not None]
    text = "; ".join(f"{name} {shown(value)}" for name, value in found)
    return Stop(*on.place(step, found[0][1] if found else 0.0), f"{x} {count(step)}: {text}")


def _finite(points: Sequence[tuple[float, float]], log: bool) -> list[tuple[float, float]]:
    return [(step, value) for step, value in points if math.isfinite(value) and (value > 0 or not log)]


def _labelled(on: Canvas, x: str, y: str) -> None:
    """Name the axes: the upright one above it, where it reads as it is written."""
    on.axis.set_xlabel(x)
    on.axis.set_title(y, loc="left", fontsize=11, color=SOFT, pad=7)
    on.axis.grid(axis="y")
    on.axis.spines["left"].set_visible(False)


def _few_ticks(on: Canvas, log: bool) -> None:
    from matplotlib.ticker import FuncFormatter

    on.axis.locator_params("x", nbins=5)
    if not log:
        on.axis.locator_params("y", nbins=5)
        on.axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    else:
        on.axis.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:.0e}" if value < 0.01 else f"{value:g}")
        )
    on.axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
