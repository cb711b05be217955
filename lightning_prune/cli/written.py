"""The page of a run: what is looked at for it while there is something to see, and when it is written."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from lightning_prune.callbacks.ending import example_of
from lightning_prune.cli.errors import message
from lightning_prune.cli.sweep import from_here
from lightning_prune.cost import count, latency
from lightning_prune.dynamic.gates import is_of_gates
from lightning_prune.page import Recorder, report_page
from lightning_prune.report import Report
from lightning_prune.shards import is_plain

_FORWARDS = 10


def look(parts: Any, folder: Path, goes_on: bool) -> Recorder:
    """Look at a model before it is trained, and have it looked at before it becomes smaller.

    Args:
        parts: what the run is made of.
        folder: the run's.
        goes_on: its weights are to come from a checkpoint.
    """
    seen = Recorder(folder)
    seen.before(parts.task, goes_on)
    parts.prune.before_shrinking = seen.after
    return seen


def details(seen: Recorder, parts: Any) -> None:
    """Look at a pruned model, count what it costs where pruning has left its shapes, and write `details.json`."""
    report: Report = parts.prune.report
    seen.after(parts.task)
    if is_of_gates(report):
        seen.costs({}, "file and latency: with gates, what a forward takes depends on its examples")
    elif parts.prune.cost_report is None:
        seen.costs(*_costs(parts.task, report, example_of(parts.prune.pruner)))
    seen.keep([weight.name for weight in report.weights])


def page(folder: Path) -> None:
    """Write a run's page, and hand it to the run of wandb that is open, if one is.

    What goes wrong here is said, and loses nothing: the run itself is over and written.
    """
    try:
        file = report_page(folder)
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            artifact = wandb.Artifact(f"report-{wandb.run.id}", type="report")
            artifact.add_file(str(file), name=file.name)
            wandb.run.log_artifact(artifact)
    except Exception as error:
        again = f"lightning-prune report {from_here(folder)} tries again"
        warnings.warn(f"the run's page could not be made: {message(error)}; {again}", stacklevel=2)


def _costs(model: nn.Module, report: Report, example_inputs: Any) -> tuple[dict[str, float], str]:
    """Return what a model costs, and why that is not known."""
    if not all(is_plain(parameter) for parameter in model.parameters()):
        return {}, "MACs, file and latency: the model lies in pieces on several processes"
    try:
        cost = count(model, example_inputs)
        (milliseconds,) = latency([model], example_inputs, _FORWARDS)
    except Exception as error:  # whatever a forward of the user's own raises
        return {}, f"MACs, file and latency: {message(error)}"
    sizes = {layer.name: [0, 0] for layer in cost.layers}
    for weight in report.weights:
        of_layer = sizes.setdefault(weight.name.rpartition(".")[0], [0, 0])
        of_layer[0] += weight.size
        of_layer[1] += weight.zeros
    live = sum(v.macs * (1 - sizes[v.name][1] / sizes[v.name][0] if sizes[v.name][0] else 1) for v in cost.layers)
    numbers = {"macs": cost.macs, "live_macs": round(live), "file_bytes": cost.file_bytes}
    return numbers | {"latency_ms": milliseconds, "repeats": _FORWARDS}, ""
