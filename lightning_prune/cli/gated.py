"""What a model with dynamic gates takes in its test: counted while it runs."""

from __future__ import annotations

from typing import Any

from lightning_prune.cli import evaluation
from lightning_prune.dynamic import Counting
from lightning_prune.dynamic.links import links_on


def test(trainer: Any, parts: Any) -> dict[str, Any]:
    """Return the facts of a run's test: its metrics, of a model with gates the multiply-adds an example as well."""
    if not evaluation.has(parts, "test"):
        return {"test": {}}
    if not any(True for _ in links_on(parts.task)):
        return {"test": evaluation.metrics(trainer, parts, "test")}
    with Counting(parts.task, getattr(parts.prune.pruner, "example_inputs", None)) as counting:
        metrics = evaluation.metrics(trainer, parts, "test")
    return {"test": metrics, "macs": counting.result.to_dict(), "said_of_macs": str(counting.result)}
