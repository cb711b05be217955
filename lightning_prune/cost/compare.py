"""A smaller model beside the dense one that it was made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_prune.cost.cost import Cost, count, shown
from lightning_prune.cost.latency import described, device_of, latency
from lightning_prune.coupling.example import example_of
from lightning_prune.report import columns
from lightning_prune.shown import frame, html_table, new_figure
from lightning_prune.shown.picture import BLUE, plain_spines

_TOO_GOOD = 2.0
"""How many times the predicted speed-up a measured one may be before it is doubted."""


@dataclass(frozen=True)
class CostReport:
    """A dense model and a smaller one made of it, side by side.

    Attributes:
        dense: cost of the dense model.
        smaller: cost of the smaller one, whose layers keep their names.
        dense_ms: milliseconds of a forward of the dense model, as `latency` measures them.
        smaller_ms: the same of the smaller one, timed in turn with it.
        repeats: how many forwards of each were timed.
        device: where, with the number of threads on a CPU.
    """

    dense: Cost
    smaller: Cost
    dense_ms: float
    smaller_ms: float
    repeats: int
    device: str

    @property
    def predicted_speedup(self) -> float:
        """How many times fewer multiply-adds the smaller model makes."""
        return _times(self.dense.macs, self.smaller.macs)

    @property
    def measured_speedup(self) -> float:
        """How many times faster it ran."""
        return _times(self.dense_ms, self.smaller_ms)

    def scalars(self) -> dict[str, float]:
        """Return flat numbers for a logger."""
        numbers: dict[str, float] = {}
        for name, cost, ms in (("dense", self.dense, self.dense_ms), ("smaller", self.smaller, self.smaller_ms)):
            numbers |= {f"{name}/{key}": value for key, value in cost.scalars().items()}
            numbers[f"{name}/latency_ms"] = ms
        return numbers | {"predicted_speedup": self.predicted_speedup, "measured_speedup": self.measured_speedup}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold; a speed-up without bound is None."""
        speedups = {"predicted_speedup": self.predicted_speedup, "measured_speedup": self.measured_speedup}
        return {
            "dense": self.dense.to_dict() | {"latency_ms": self.dense_ms},
            "smaller": self.smaller.to_dict() | {"latency_ms": self.smaller_ms},
            **{name: value if math.isfinite(value) else None for name, value in speedups.items()},
            "repeats": self.repeats,
            "device": self.device,
        }

    def _repr_html_(self) -> str:
        return html_table(self._whole(), [self._speedup()])

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`, a row a layer. Raises ModuleNotFoundError without pandas."""
        smaller = {layer.name: layer for layer in self.smaller.layers}
        records = [
            {
                "layer": shown(a.name),
                "kind": a.kind,
                "parameters": a.parameters,
                "smaller_parameters": smaller[a.name].parameters if a.name in smaller else 0,
                "macs": a.macs,
                "smaller_macs": smaller[a.name].macs if a.name in smaller else 0,
            }
            for a in self.dense.layers
        ]
        return frame(records, "layer")

    def plot(self) -> Any:
        """Return a matplotlib figure of what is left, of the dense model. Raises ModuleNotFoundError without it."""
        made = new_figure(7, 2.6)
        axis = made.subplots()
        names = list(self._totals())
        axis.barh(names, [100] * len(names), color="#eeeeee", height=0.6)
        axis.barh(names, [100 * y / max(x, 1e-12) for x, y in self._totals().values()], color=BLUE, height=0.6)
        for place, (_, dense, smaller, _) in enumerate(self._whole()[1:]):
            axis.text(101, place, f"{smaller} of {dense}", va="center", fontsize=8)
        axis.invert_yaxis()
        axis.set(title=self._speedup().partition(" (")[0], xlabel="of the dense model, %")
        plain_spines(axis)
        return made

    def table(self) -> str:
        """Return tables for people: every layer, and the whole with predicted and measured speed-up."""
        smaller = {layer.name: layer for layer in self.smaller.layers}
        rows = [("layer", "parameters", "smaller", "MACs", "smaller", "times fewer MACs")]
        for a in self.dense.layers:
            b = smaller.pop(a.name, None)
            times = "" if b is None or not a.macs else f"{_times(a.macs, b.macs):.2f}"
            left = ("gone", "gone") if b is None else (f"{b.parameters:,}", f"{b.macs:,}")
            rows.append((shown(a.name), f"{a.parameters:,}", left[0], f"{a.macs:,}", left[1], times))
        rows += [(shown(b.name), "none", f"{b.parameters:,}", "none", f"{b.macs:,}", "") for b in smaller.values()]
        return "\n".join([columns(rows, rules={1}), "", columns(self._whole(), rules={1}), self._speedup()])

    def _totals(self) -> dict[str, tuple[float, float]]:
        one, other = self.dense, self.smaller
        return {
            "parameters": (one.parameters, other.parameters),
            "file, bytes": (one.file_bytes, other.file_bytes),
            "MACs": (one.macs, other.macs),
            "latency, ms": (self.dense_ms, self.smaller_ms),
        }

    def _whole(self) -> list[tuple[str, str, str, str]]:
        rows = [("", "dense", "smaller", "times less")]
        for name, (x, y) in self._totals().items():
            digits = ".3f" if name == "latency, ms" else ","
            rows.append((name, f"{x:{digits}}", f"{y:{digits}}", f"{_times(x, y):.2f}"))
        return rows

    def _speedup(self) -> str:
        busy = self.measured_speedup > _TOO_GOOD * self.predicted_speedup
        doubt = "; that is more than the MACs explain: was the machine busy? lightning-prune bench measures again"
        return (
            f"speed-up: {self.predicted_speedup:.2f} predicted from MACs, {self.measured_speedup:.2f} measured "
            f"({self.repeats} forwards, in turn, on {self.device}){doubt if busy else ''}"
        )


def compare(dense: nn.Module, smaller: nn.Module, example_inputs: Any = None, repeats: int = 30) -> CostReport:
    """Return the costs of two models side by side, both measured here and now.

    Args:
        dense: the model to compare with.
        smaller: what became of it.
        example_inputs: as for `count`; None for the dense model's `example_input_array`.
        repeats: as for `latency`.

    Raises:
        ValueError: `repeats` is below 1, or there are no example inputs.
    """
    inputs = example_of(dense, example_inputs)
    dense_ms, smaller_ms = latency((dense, smaller), inputs, repeats)
    where = device_of(smaller)
    threads = torch.get_num_threads()
    name = described(where)
    device = f"{name} with {threads} thread{'s' if threads > 1 else ''}" if where.type == "cpu" else name
    return CostReport(count(dense, inputs), count(smaller, inputs), dense_ms, smaller_ms, repeats, device)


def _times(large: float, small: float) -> float:
    return large / small if small else (math.inf if large else 1.0)
