"""The end of a run: whether it reached what was asked for, the smaller model, and what its zeros say afterwards."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from lightning_prune.cost import CostReport, compare
from lightning_prune.coupling.couple import plain_copy
from lightning_prune.learned import LearnedMasks
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning import Pruner
from lightning_prune.report import Report, percent
from lightning_prune.shrink import ShrinkReport, shrink_
from lightning_prune.targets import plain_name


def warn_of_less(title: str, pruner: Pruner | LearnedMasks, report: Report) -> None:
    """Warn if a stripped model is less sparse than was asked for, by more than its largest unit, and say why."""
    if report.sparsity < report.final_sparsity - report.grain / max(1, report.size):
        warnings.warn(
            f"{title}: reached a sparsity of {percent(report.sparsity)}, less than the "
            f"{percent(report.final_sparsity)} asked for; {_why_less(pruner)}",
            stacklevel=3,
        )


def example_of(pruner: Pruner | LearnedMasks) -> Any:
    """Return the inputs that the pruner's pattern was given to find units with, or None for the module's own."""
    return pruner.pattern.example_inputs if isinstance(pruner.pattern, CoupledPattern) else None


def _why_less(pruner: Pruner | LearnedMasks) -> str:
    schedule, last = pruner.resolved_schedule, pruner.last_update
    if last is None or last < schedule.end_step:
        return f"the run ended before end_step={schedule.end_step}"
    if isinstance(pruner.pattern, CoupledPattern):
        return "each group of units keeps one at least, and a multiple where one is asked for"
    return f"{pruner.selection} does not keep to the exact number"


@dataclass(frozen=True)
class Smaller:
    """What became of a model whose dead units were taken out; the costs on the first rank alone."""

    report: ShrinkReport
    recipe: dict[str, Any]
    cost: CostReport | None


def make_smaller(trainer: pl.Trainer, model: pl.LightningModule, example_inputs: Any) -> Smaller:
    """Take dead units out of a model in place, and measure it beside what it was."""
    larger = plain_copy(model)
    report, recipe = shrink_(model, example_inputs)
    trainer.strategy.optimizers = []  # they know the larger parameters
    return Smaller(report, recipe, compare(larger, model, example_inputs) if trainer.is_global_zero else None)


def masks_left(report: Report, model: nn.Module) -> dict[str, Tensor]:
    """Return the masks that the zeros of a stripped model show, by the names of its pruned weights."""
    pruned = {weight.name for weight in report.weights}
    named = {plain_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    return {name: parameter != 0 for name, parameter in named.items() if name in pruned}


def zeros_are_left(report: Report, model: nn.Module) -> bool:
    """Return whether a stripped model still has the zeros that its report counted."""
    masks = masks_left(report, model)
    return all(w.name in masks and int((~masks[w.name]).sum()) == w.zeros for w in report.weights)
