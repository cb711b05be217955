"""What pruning each layer alone costs, what comes of it for all, and how it is shown and written."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.cli.errors import UserError
from lightning_prune.pruning.least_loss import Curve, least_loss
from lightning_prune.report import columns, percent
from lightning_prune.rounds.alone import Layers, Point, measured

_TABLES = 3


@dataclass(frozen=True)
class Sensitivity:
    """What was measured, and the sparsities that follow.

    Attributes:
        loss: the metric that is to rise as little as may be.
        unit: what a layer gives up, "weights" or "units".
        dense: the metrics before anything is pruned.
        sizes: name of a layer -> how many weights or units it has.
        points: name of a layer -> what was measured with it alone pruned.
        asked: the sparsity wanted in all.
        reached: what the plan comes to.
        gone: how many weights or units of each layer go by the plan.
        rise: how far the loss rises by the curves, all layers' rises added.
        planned: the metrics of the model pruned by the plan, at once and without training.
        alike: the same with the same share of every layer gone.
    """

    loss: str
    unit: str
    dense: Mapping[str, float]
    sizes: Mapping[str, int]
    points: Mapping[str, Sequence[Point]]
    asked: float
    reached: float
    gone: Mapping[str, int]
    rise: float
    planned: Mapping[str, float]
    alike: Mapping[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """The sparsity of each layer by the plan."""
        return {name: count / self.sizes[name] for name, count in self.gone.items()}

    @property
    def levels(self) -> list[float]:
        """The shares that were measured."""
        return sorted({point.share for points in self.points.values() for point in points})

    def text(self) -> str:
        """Return tables for people: each metric by layer and level, and the plan."""
        others = [name for name in self.dense if name != self.loss]
        tables = [self._table(name) for name in [self.loss, *others][:_TABLES]]
        return "\n\n".join([*tables, self._plan()])

    def _table(self, metric: str) -> str:
        rows = [(metric, self.unit, "0 %", *(percent(level).replace(".00 %", " %") for level in self.levels))]
        for name, points in self.points.items():
            by_level = {point.share: point for point in points}
            cells = [f"{by_level[at].metrics[metric]:.4f}" if at in by_level else "" for at in self.levels]
            rows.append((name, f"{self.sizes[name]:,}", f"{self.dense[metric]:.4f}", *cells))
        return columns(rows, rules={1})

    def _plan(self) -> str:
        rows = [("plan", self.unit, "gone", "sparsity" if self.unit == "weights" else "share")]
        rows += [
            (name, f"{self.sizes[name]:,}", f"{count:,}", percent(count / self.sizes[name]))
            for name, count in self.gone.items()
        ]
        before, planned, alike = (m[self.loss] for m in (self.dense, self.planned, self.alike))
        return (
            columns(rows, rules={1})
            + f"\n{percent(self.reached)} of all weights zero, {percent(self.asked)} asked for; "
            f"by the curves {self.loss} rises by {self.rise:.4f}\n"
            f"{self.loss} without training: {before:.4f} as it is, {planned:.4f} pruned by the plan, {alike:.4f} with "
            "the same share of every layer gone"
        )

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return {
            "loss": self.loss,
            "unit": self.unit,
            "dense": _finite(self.dense),
            "layers": [
                {
                    "name": name,
                    "size": self.sizes[name],
                    "points": [
                        {"level": p.share, "gone": p.gone, "share": p.gone / self.sizes[name]} | _finite(p.metrics)
                        for p in points
                    ],
                    "planned": {"gone": self.gone[name], "share": self.shares[name]},
                }
                for name, points in self.points.items()
            ],
            "asked": self.asked,
            "reached": self.reached,
            "rise": self.rise,
            "planned": _finite(self.planned),
            "alike": _finite(self.alike),
        }

    def save(self, folder: Path) -> None:
        """Write all of it as sensitivity.json, and the curves, a row a point, as sensitivity.csv."""
        text = json.dumps(self.facts(), indent=2)
        (folder / "sensitivity.json").write_text(text + "\n", encoding="utf-8")
        with (folder / "sensitivity.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["layer", self.unit, "gone", "share", *self.dense])
            for name, points in self.points.items():
                for gone, metrics in ((0, self.dense), *((point.gone, point.metrics) for point in points)):
                    writer.writerow([name, self.sizes[name], gone, gone / self.sizes[name], *metrics.values()])


def measure(
    layers: Layers,
    levels: Sequence[float],
    evaluate: Callable[[], Mapping[str, float]],
    loss: str | None,
    sparsity: float,
) -> Sensitivity:
    """Return what pruning each layer alone costs, and the sparsities that come to one in all.

    Args:
        layers: of the model.
        levels: the shares to prune each layer to.
        evaluate: measures the model as it is.
        loss: the metric that is to rise as little as may be; None for the first whose name ends in loss.
        sparsity: the wanted one.

    Raises:
        UserError: there is no such metric, it is not finite, or the levels do not reach as far as the sparsity.
    """
    dense = dict(evaluate())
    loss = loss or next((name for name in dense if name.endswith("loss")), None)
    if loss not in dense:
        there = ", ".join(dense) or "none at all"
        raise UserError(f"validation has no metric {loss or 'that ends in loss'}: there are {there}; give --loss NAME")
    if not math.isfinite(dense[loss]):
        raise UserError(f"{loss} is {dense[loss]} before anything is pruned: there is nothing to measure it by")
    goal = round(sparsity * layers.prunable)
    _check_reach(layers, max(levels), goal, sparsity)
    points = measured(layers, levels, evaluate)
    curves = [_curve(name, layers, dense[loss], points[name], loss) for name in layers.sizes]
    try:
        gone = least_loss(curves, layers.zeros, goal)
    except ValueError as error:
        raise UserError(
            f"{loss} is not finite at the higher levels, and a sparsity of {sparsity:g} needs them: {error}"
        ) from error
    planned = dict(zip(layers.sizes, gone, strict=True))
    with layers.pruned(planned):
        by_plan = dict(evaluate())
    with layers.pruned(dict(zip(layers.sizes, layers.alike(goal), strict=True))):
        alike = dict(evaluate())
    return Sensitivity(
        loss=loss,
        unit=layers.unit,
        dense=dense,
        sizes=layers.sizes,
        points=points,
        asked=sparsity,
        reached=layers.zeros(gone) / layers.prunable,
        gone=planned,
        rise=sum(curve.at(count) - dense[loss] for curve, count in zip(curves, gone, strict=True)),
        planned=by_plan,
        alike=alike,
    )


def _curve(name: str, layers: Layers, dense: float, points: Sequence[Point], loss: str) -> Curve:
    """Return a layer's curve, as far as the loss is finite."""
    found = [(0, dense)]
    for point in points:
        if not math.isfinite(point.metrics[loss]):
            break
        found.append((point.gone, point.metrics[loss]))
    return Curve(name, layers.sizes[name], tuple(found), layers.step)


def _check_reach(layers: Layers, level: float, goal: int, sparsity: float) -> None:
    most = layers.zeros(layers.counts(level))
    if most < goal:
        raise UserError(
            f"a sparsity of {sparsity:g} lies past what the highest level, {level:g}, comes to in all, "
            f"{most / layers.prunable:.4f}: add a higher one by --levels, or ask for less by --sparsity"
        )


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
