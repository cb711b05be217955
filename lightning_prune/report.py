"""What was pruned: numbers per weight and in all, for loggers, for files and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_prune.shown import by_reason, frame, html_table, new_figure
from lightning_prune.shown.picture import draw_shares, height_of, plain_spines

_NEARLY_ALL = 0.99
"""A layer that lost more has lost nearly all, where those it competes with were to lose less."""


@dataclass(frozen=True)
class WeightReport:
    """One prunable weight.

    Attributes:
        name: dotted name.
        shape: its shape.
        size: how many entries it has.
        zeros: how many of them are zero, counted in the weight itself.
        threshold: the boundary score of the latest update.
        final_sparsity: where a rule or a layer-wise scope is to take it, None if only the whole has a target.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    zeros: int
    threshold: float
    final_sparsity: float | None

    @property
    def dimensions(self) -> str:
        """The shape for people, such as 64x3x3x3."""
        return "x".join(map(str, self.shape))

    @property
    def sparsity(self) -> float:
        """The share of its entries that are zero."""
        return self.zeros / self.size if self.size else 0.0


@dataclass(frozen=True)
class Spent:
    """What a model costs beside its weights, where that is what the sparsity is a share of.

    Attributes:
        unit: in words, such as "MACs".
        total: what the whole model cost.
        left: what it costs now.
        asked: the share that is to go in the end.
        grain: the share that the largest step of a group of units takes: the budget is met no nearer than that.
        reachable: the share that goes where every group keeps as few units as it may.
        digits: how many digits behind the point are shown.
        basis: what it rests on, in words; "" where it is counted.
        speedup: how many times as fast the model is without its dead units, where that was asked for and measured.
        speedup_asked: how many times as fast it was to be.
    """

    unit: str
    total: float
    left: float
    asked: float
    grain: float
    reachable: float
    digits: int = 0
    basis: str = ""
    speedup: float | None = None
    speedup_asked: float | None = None

    @property
    def gone(self) -> float:
        """The share that is gone."""
        return 1.0 - self.left / self.total if self.total else 0.0

    def __str__(self) -> str:
        """Return a line for people."""
        asked = f"{percent(self.gone)} gone, {percent(self.asked)} asked for in the end"
        left, total = (f"{number:,.{self.digits}f}" for number in (self.left, self.total))
        basis = f" ({self.basis})" if self.basis else ""
        faster = "" if self.speedup is None else f"; without its dead units {self._speedup}"
        return f"{self.unit}: {left} of {total} are left; {asked}{basis}{faster}"

    @property
    def _speedup(self) -> str:
        return f"{self.speedup:.2f} times as fast, measured, {self.speedup_asked:g} asked for"

    @property
    def too_slow(self) -> str | None:
        """What to say where the model was measured slower than asked for by more than a twentieth; None elsewhere."""
        if self.speedup is None or self.speedup_asked is None or self.speedup >= 0.95 * self.speedup_asked:
            return None
        nearer = self.speedup_asked * self.speedup_asked / self.speedup
        return (
            f"without its dead units the model is {self._speedup}: training changed which units go, or the machine was "
            f"busy. Ask for speedup={nearer:.3g}, or measure on an idle machine"
        )


@dataclass(frozen=True)
class Report:
    """The state of a pruned model.

    Attributes:
        weights: every prunable weight, in the model's order.
        skipped: name of every other parameter -> why it is left whole.
        target_sparsity: what the schedule asks for at the latest update, of all prunable weights together.
        final_sparsity: what it will ask for in the end.
        parameters: how many entries all parameters of the model have.
        step: the step of the latest update, None before the first.
        grain: how many weights the largest unit holds: the budget is met no nearer than that.
        asks: whether a sparsity is asked for; else the masks find their own, and the targets are those of now.
        reachable: the share of zeros where every group of units keeps as few as it may.
        notes: what the plan says besides, a line each.
        asked: name of a weight -> the final sparsity of all that it competes with; `final_sparsity` for others.
        open_end: what the plan says in place of a final sparsity that nobody knows beforehand.
        spent: what the sparsity asked for is a share of, where that is not the weights; what is asked of these is then
            what it comes to, where every group gives up alike.
    """

    weights: Sequence[WeightReport]
    skipped: Mapping[str, str]
    target_sparsity: float
    final_sparsity: float
    parameters: int
    step: int | None
    grain: int = 1
    asks: bool = True
    reachable: float = 1.0
    notes: Sequence[str] = ()
    asked: Mapping[str, float] = field(default_factory=dict[str, float])
    open_end: str = ""
    spent: Spent | None = None

    @property
    def size(self) -> int:
        """How many prunable weights there are."""
        return sum(weight.size for weight in self.weights)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(weight.zeros for weight in self.weights)

    @property
    def sparsity(self) -> float:
        """The share of zeros among prunable weights."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def starved(self) -> list[WeightReport]:
        """Those that lost more than 99 % of their entries, or all but one, where less was asked for.

        Asked for is what all that a weight competes with are to lose together; by a rule of its own, or in a scope that
        treats layers apart, that is itself. A weight that has nothing left was asked for it only where all was.
        """
        return [weight for weight in self.weights if self._is_starved(weight)]

    def _is_starved(self, weight: WeightReport) -> bool:
        asked, left = self.asked.get(weight.name, self.final_sparsity), weight.size - weight.zeros
        if not 0.0 < asked < 1.0:
            return False
        return not left or (asked < weight.sparsity and asked < _NEARLY_ALL < max(weight.sparsity, float(left == 1)))

    def scalars(self) -> dict[str, float]:
        """Return flat numbers for a logger."""
        numbers = {"sparsity": self.sparsity, "target_sparsity": self.target_sparsity}
        for weight in self.weights:
            numbers[f"sparsity/{weight.name}"] = weight.sparsity
            numbers[f"threshold/{weight.name}"] = weight.threshold
        if self.spent is not None:
            numbers[f"left/{self.spent.unit}"] = self.spent.left
        return numbers

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return {
            "sparsity": self.sparsity,
            "target_sparsity": self.target_sparsity,
            "final_sparsity": self.final_sparsity,
            "zeros": self.zeros,
            "prunable": self.size,
            "parameters": self.parameters,
            "step": self.step,
            **({} if self.spent is None else {"spent": asdict(self.spent) | {"gone": self.spent.gone}}),
            "weights": [asdict(weight) | {"sparsity": weight.sparsity} for weight in self.weights],
            "skipped": dict(self.skipped),
        }

    def table(self) -> str:
        """Return a table for people: every prunable weight, the whole, and what is left whole and why."""
        rows = self._rows()
        return "\n".join([columns(rows, rules={1, len(rows) - 1}), *self._footer()])

    def html(self) -> str:
        """Return `table` as HTML, which notebooks show."""
        return html_table(self._rows(), self._footer())

    def _repr_html_(self) -> str:
        return self.html()

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`, a row a weight. Raises ModuleNotFoundError without pandas."""
        return frame([asdict(weight) | {"sparsity": weight.sparsity} for weight in self.weights], "name")

    def plot(self) -> Any:
        """Return a matplotlib figure of the sparsity by layer. Raises ModuleNotFoundError without matplotlib."""
        made = new_figure(8, height_of(len(self.weights)))
        self.draw(made.subplots())
        return made

    def draw(self, axis: Any) -> None:
        """Draw the sparsity by layer into an axis of matplotlib."""
        names, sizes = [w.name for w in self.weights], [w.size for w in self.weights]
        draw_shares(axis, names, [w.sparsity for w in self.weights], sizes, self.sparsity, "sparsity by layer")
        plain_spines(axis)

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [("weight", "shape", "weights", "zeros", "sparsity", "threshold")]
        rows += [
            (w.name, w.dimensions, f"{w.size:,}", f"{w.zeros:,}", percent(w.sparsity), f"{w.threshold:.3g}")
            for w in self.weights
        ]
        return [*rows, ("all prunable", "", f"{self.size:,}", f"{self.zeros:,}", percent(self.sparsity), "")]

    def plan(self) -> str:
        """Return a table of what will be pruned, and what not and why."""
        rows = [("weight", "shape", "weights", "final sparsity")]
        open_end = self.open_end or ("by rank" if self.asks else "learned")
        rows += [
            (w.name, w.dimensions, f"{w.size:,}", open_end if w.final_sparsity is None else percent(w.final_sparsity))
            for w in self.weights
        ]
        rows.append(
            ("all prunable", "", f"{self.size:,}", self._planned() if self.asks and not self.open_end else open_end)
        )
        return "\n".join([columns(rows, rules={1, len(rows) - 1}), *self._footer(), *self.notes])

    def left_whole(self, names: int = 4, reasons: int = 8) -> list[str]:
        """Return what is left whole in a few lines, one a reason; `skipped` has it all.

        Args:
            names: how many are shown of each reason, those that differ in the names of weights alone taken together.
            reasons: how many are shown; what is left whole for others is counted.
        """
        return by_reason("left whole", self.skipped, names, reasons)

    def left_of_starved(self, most: int = 8) -> str:
        """Return the starved weights with what is left of each, counted where there are more than `most`."""
        named = [f"{w.name} ({w.size - w.zeros:,} of {w.size:,})" for w in self.starved[:most]]
        more = len(self.starved) - len(named)
        return ", ".join(named) + (f" and {more} more" if more else "")

    def _planned(self) -> str:
        return percent(self.final_sparsity) if self.spent is None else f"about {100 * self.final_sparsity:.0f} %"

    def _asked(self) -> str:
        return percent(self.target_sparsity if self.step is not None else self.final_sparsity)

    def _footer(self) -> list[str]:
        asked = f"; asked for {self._asked()}" if self.asks and self.spent is None else ""
        whole = [] if self.spent is None else [str(self.spent)]
        whole += [] if self.grain == 1 else [f"whole units of up to {self.grain:,} weights{asked}"]
        wanted, most = (
            (self.final_sparsity, self.reachable) if self.spent is None else (self.spent.asked, self.spent.reachable)
        )
        if self.asks and most < wanted:
            fewest = f"each group keeps one unit at least, or the pattern's multiple: {percent(most)} at most"
            whole.append(f"{percent(wanted)} is out of reach; {fewest}")
        if self.starved:
            whole.append(f"nearly nothing is left of {self.left_of_starved()}")
        return [f"{self.size:,} of {self.parameters:,} parameters are prunable", *whole, *self.left_whole()]


def percent(share: float) -> str:
    """Return a share as a percentage with as many digits as tell it from 0 and 100."""
    digits = next((d for d in range(2, 12) if float(f"{100 * share:.{d}f}") not in (0.0, 100.0)), 2)
    return f"{100 * share:.{digits}f} %"


def columns(rows: Sequence[Sequence[str]], rules: set[int]) -> str:
    """Return rows as text in columns, the first flush left, with a line drawn above the rows numbered in `rules`."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines: list[str] = []
    for number, row in enumerate(rows):
        if number in rules:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *padded[1:]]).rstrip())
    return "\n".join(lines)
