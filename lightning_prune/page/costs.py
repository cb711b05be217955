"""What a model costs before and after, wherever a run has left it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_prune.page import words
from lightning_prune.page.run import Run


@dataclass(frozen=True)
class Cost:
    """One thing that a model costs.

    Attributes:
        name: what it is.
        dense: before.
        pruned: after.
        kind: how it is shown: a count, bytes or milliseconds.
    """

    name: str
    dense: float
    pruned: float
    kind: str = "count"

    @property
    def said(self) -> tuple[str, str]:
        """Both for people."""
        show = {"bytes": words.size, "ms": words.milliseconds}.get(self.kind, words.count)
        return show(self.dense), show(self.pruned)

    @property
    def short(self) -> tuple[str, str]:
        """Both in few characters."""
        show = {"bytes": words.size, "ms": words.milliseconds}.get(self.kind, words.short)
        return show(self.dense), show(self.pruned)

    @property
    def times(self) -> str:
        """How many times less."""
        return words.times(self.dense, self.pruned)


def costs(run: Run) -> tuple[list[Cost], str]:
    """Return what a run's model costs, and what there is to say of it; nothing where it was not counted."""
    cost = run.report.get("cost")
    if isinstance(cost, dict):
        return _smaller(cost)
    if run.rounds:
        pairs = {"parameters": run.report.get("parameters"), "MACs": run.report.get("macs")}
        found = [Cost(name, *pair) for name, pair in pairs.items() if isinstance(pair, list) and len(pair) == 2]
        return found, "The smaller model is dense: its dead units are gone. Times were not measured."
    if run.gated:
        macs: Any = run.report.get("macs")
        note = "On average over the test's examples, as kernels would make them that leave gated channels out."
        if not isinstance(macs, dict) or not (_number(macs.get("dense")) and _number(macs.get("total"))):
            return [], ""
        return [Cost("MACs", float(macs["dense"]), float(macs["total"]))], note
    seen = run.details.cost
    whole = run.report.get("parameters")
    zeros = sum(layer.zeros for layer in run.layers)
    found = [] if not isinstance(whole, int) else [Cost("parameters that are not zero", whole, whole - zeros)]
    if "macs" in seen:
        found.append(Cost("MACs by weights that are not zero", seen["macs"], seen.get("live_macs", seen["macs"])))
    if "file_bytes" in seen:
        found.append(Cost("file", seen["file_bytes"], seen["file_bytes"], "bytes"))
    if "latency_ms" in seen:
        found.append(Cost("latency", seen["latency_ms"], seen["latency_ms"], "ms"))
    note = "The model has kept its shapes, and so the dense one's file and latency: zeros alone make neither less."
    timed = f" Latency: {seen['repeats']:.0f} forwards, timed once." if "repeats" in seen else ""
    return found, note + timed if found else ""


def _smaller(cost: Mapping[str, Any]) -> tuple[list[Cost], str]:
    dense, smaller = cost.get("dense") or {}, cost.get("smaller") or {}
    kinds = {
        "parameters": ("parameters", "count"),
        "macs": ("MACs", "count"),
        "file_bytes": ("file", "bytes"),
        "latency_ms": ("latency", "ms"),
    }
    found = [
        Cost(name, float(dense[key]), float(smaller[key]), kind)
        for key, (name, kind) in kinds.items()
        if _number(dense.get(key)) and _number(smaller.get(key))
    ]
    note = (
        "The smaller model is dense: its dead units are gone. Latency: "
        f"{cost.get('repeats')} forwards of each, in turn, on {cost.get('device')}."
    )
    return found, note


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
