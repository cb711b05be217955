"""What the zeros of a stripped model say: the masks it was left with, and whether they are still there."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_prune.dynamic import GateReport
from lightning_prune.dynamic.links import links_on
from lightning_prune.report import Report
from lightning_prune.targets import plain_name


def masks_left(report: Report, model: nn.Module) -> dict[str, Tensor]:
    """Return the masks that the zeros of a stripped model show, by the names of its pruned weights."""
    if isinstance(report, GateReport):  # none of the weights is zero
        return {}
    pruned = {weight.name for weight in report.weights}
    named = {plain_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    return {name: parameter != 0 for name, parameter in named.items() if name in pruned}


def zeros_are_left(report: Report, model: nn.Module) -> bool:
    """Return whether a stripped model still has the zeros that its report counted."""
    if isinstance(report, GateReport):
        return {weight.name.rpartition(".")[0] for weight in report.weights} <= {name for name, _ in links_on(model)}
    masks = masks_left(report, model)
    return all(w.name in masks and int((~masks[w.name]).sum()) == w.zeros for w in report.weights)
