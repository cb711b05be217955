"""A checkpoint before and after it was made smaller: what it answers, what it costs, and whether the target was met."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_prune.cli import build, evaluation
from lightning_prune.cost import CostReport, compare
from lightning_prune.coupling.example import examples_in
from lightning_prune.pruning.target import CostTarget, Found, steady_latency
from lightning_prune.report import columns

if TYPE_CHECKING:
    from lightning_prune.cli.build import Parts

FILE = "compressed.json"
_BLOCKS = 16
_MISS = {"macs": 0.03, "parameters": 0.03, "speedup": 0.05}
"""How far off is worth a line, as a share of what was asked for; latencies vary by themselves."""


@dataclass(frozen=True)
class Compressed:
    """What came out.

    Attributes:
        target: what was asked for.
        found: the sparsity, and what it came to without training.
        share: what it came to, as a share of the checkpoint's cost.
        cost: the checkpoint and the smaller model side by side; latencies are the least medians of short blocks.
        metrics: of test, or else of validation: the checkpoint's and the smaller model's.
        batch: how many examples a forward has that was counted and timed.
    """

    target: CostTarget
    found: Found
    share: float
    cost: CostReport
    metrics: tuple[Mapping[str, float], Mapping[str, float]]
    batch: int

    @property
    def missed(self) -> str | None:
        """What to do about a target that was missed, in one line; None where it was met."""
        asked, tolerance = self.target.share, _MISS[self.target.kind]
        met = self.target.of_share(self.share)
        if self.share > asked * (1 + tolerance):
            nearer = self.target.of_share(asked * asked / self.share)
            if self.target.kind == "speedup":
                return (
                    f"missed: {met}, where {self.target} was asked for; ask for {nearer}, or measure on an idle machine"
                )
            why = "training changed which units go"
        elif self.target.kind != "speedup" and self.share < self.found.share * (1 - tolerance):
            nearer = self.target.of_share(min(0.99, asked * self.found.share / self.share))
            why = "training changed which units go, and more went than had to"
        else:
            return None
        return (
            f"missed: {met}, where {self.target} was asked for: {why}; ask for {nearer}, or have every layer lose the "
            "same share, whatever training does: pruner/scope=uniform"
        )

    def table(self) -> str:
        """Return a table for people."""
        rows = [("", "before", "after", "times less")]
        before, after = self.metrics
        rows += [(name, f"{value:.4f}", f"{after[name]:.4f}", "") for name, value in before.items() if name in after]
        one, other = self.cost.dense, self.cost.smaller
        for name, x, y in (
            ("parameters", one.parameters, other.parameters),
            (f"MACs, batch of {self.batch}", one.macs, other.macs),
            ("file, bytes", one.file_bytes, other.file_bytes),
        ):
            rows.append((name, f"{x:,}", f"{y:,}", f"{x / y:.2f}" if y else ""))
        times = (f"{self.cost.dense_ms:.3f}", f"{self.cost.smaller_ms:.3f}", f"{self.cost.measured_speedup:.2f}")
        rows.append(("latency, ms", *times))
        lines = [
            columns(rows, rules={1}),
            f"{self.target} asked for, {self.target.of_share(self.share)} met, at a sparsity of "
            f"{self.found.sparsity:.4f}",
            f"latency: batch of {self.batch} on {self.cost.device}, the least of {_BLOCKS} medians of "
            f"{self.cost.repeats // _BLOCKS} forwards, in turn",
        ]
        return "\n".join([*lines, *([self.missed] if self.missed else [])])

    def save(self, folder: Path) -> None:
        """Write all of it as JSON into a folder."""
        facts = {
            "target": {self.target.kind: self.target.value},
            "met": self.missed is None,
            "asked_share": self.target.share,
            "share": self.share,
            "share_without_training": self.found.share,
            "sparsity": self.found.sparsity,
            "batch": self.batch,
            "before": dict(self.metrics[0]),
            "after": dict(self.metrics[1]),
            "cost": self.cost.to_dict(),
        }
        (folder / FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def compressed(
    dense: nn.Module,
    smaller: nn.Module,
    example_inputs: Any,
    target: CostTarget,
    found: Found,
    metrics: tuple[Mapping[str, float], Mapping[str, float]],
) -> Compressed:
    """Measure both models and return what came out. A speed-up that is missed is measured a second time."""
    cost = compare(dense, smaller, example_inputs, repeats=1)
    times = steady_latency((dense, smaller), example_inputs, _BLOCKS)
    if target.kind == "speedup" and times[1] > times[0] * target.share:
        again = steady_latency((dense, smaller), example_inputs, _BLOCKS)
        times = [min(pair) for pair in zip(times, again, strict=True)]
    cost = replace(cost, dense_ms=times[0], smaller_ms=times[1], repeats=5 * _BLOCKS)
    if target.kind == "speedup":
        share = times[1] / times[0]
    else:
        share = getattr(cost.smaller, target.kind) / max(1, getattr(cost.dense, target.kind))
    return Compressed(target, found, share, cost, metrics, examples_in(example_inputs))


def evaluated(config: Any, parts: Parts) -> dict[str, float]:
    """Return the metrics of the test, or else of the validation; none where task and data have neither."""
    for stage in ("test", "validation"):
        if evaluation.has(parts, stage):
            return evaluation.metrics(build.plain_trainer(on_one_device(config), parts.task), parts, stage)
    return {}


def on_one_device(config: Any) -> Any:
    """Return a config whose trainer starts no other process."""
    from omegaconf import OmegaConf, open_dict

    alone = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    with open_dict(alone):
        alone.trainer.devices, alone.trainer.strategy = 1, "auto"
        if "num_nodes" in alone.trainer:
            alone.trainer.num_nodes = 1
    return alone
