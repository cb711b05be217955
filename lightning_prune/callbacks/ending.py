"""The end of a run: whether it reached what was asked for, the smaller model, and what its zeros say afterwards."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_prune.callbacks.shrunk_checkpoints import save_masked, shrink_averages
from lightning_prune.cost import CostReport, compare
from lightning_prune.coupling.couple import plain_copy
from lightning_prune.learned import LearnedMasks
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning import Pruner
from lightning_prune.report import Report, percent
from lightning_prune.shrink import ShrinkReport, shrink_, whole_again

if TYPE_CHECKING:
    import pytorch_lightning as pl


def say_end(title: str, pruner: Pruner | LearnedMasks, report: Report) -> None:
    """Say what a stripped model came to, and warn where that is less than was asked for, or nothing of a layer."""
    rank_zero_info(f"{title}: done\n{report.table()}")
    warn_of_less(title, pruner, report)
    warn_of_starved(title, pruner, report)


def warn_of_less(title: str, pruner: Pruner | LearnedMasks, report: Report) -> None:
    """Warn if a stripped model is less sparse than was asked for, by more than its largest unit, and say why."""
    spent = report.spent
    if spent is not None and spent.too_slow:
        warnings.warn(f"{title}: {spent.too_slow}", stacklevel=4)
    bound = getattr(getattr(pruner, "selection", None), "at_most", False)  # what was asked for is the most
    if bound and pruner.last_update is not None and pruner.last_update >= pruner.resolved_schedule.end_step:
        return
    if spent is not None:
        if spent.gone < spent.asked - spent.grain:
            warnings.warn(
                f"{title}: {percent(spent.gone)} of the {spent.unit} went, less than the {percent(spent.asked)} asked "
                f"for; {_why_less(pruner)}",
                stacklevel=4,
            )
        return
    if report.sparsity < report.final_sparsity - report.grain / max(1, report.size):
        warnings.warn(
            f"{title}: reached a sparsity of {percent(report.sparsity)}, less than the "
            f"{percent(report.final_sparsity)} asked for; {_why_less(pruner)}",
            stacklevel=4,
        )


def warn_of_starved(title: str, pruner: Pruner | LearnedMasks, report: Report) -> None:
    """Warn of the weights of a stripped model that lost nearly everything where less was asked for, with what to do."""
    if report.starved:
        whole = f"{percent(report.sparsity)} of all together"
        warnings.warn(
            f"{title}: nearly nothing is left of {report.left_of_starved()}, where {whole} went; {_remedy(pruner)}",
            stacklevel=4,
        )


def _remedy(pruner: Pruner | LearnedMasks) -> str:
    leave = "leave such layers out by Targets(exclude=...)"
    if isinstance(pruner, LearnedMasks):
        return f"weaken mask_regularizer, lower the schedule's final sparsity, or {leave}"
    return (
        "have layers pruned apart by scope=Uniform() or ERK(), raise the floor of GlobalRanking(floor=...), prune less "
        f"or train longer, or {leave}"
    )


def _why_less(pruner: Pruner | LearnedMasks) -> str:
    schedule, last = pruner.resolved_schedule, pruner.last_update
    if isinstance(pruner, Pruner) and pruner.put_off:
        return pruner.put_off
    if last is None or last < schedule.end_step:
        return f"the run ended before end_step={schedule.end_step}"
    if not getattr(pruner.selection, "exact", True):
        return f"{pruner.selection} does not keep to the exact number"
    if isinstance(pruner.pattern, CoupledPattern):
        return "each group of units keeps one at least, and a multiple where one is asked for"
    if getattr(pruner.pattern, "spares", False):
        return f"{pruner.pattern} keeps the best unit of each weight"
    return f"its last update, at step {last}, left it there"


@dataclass(frozen=True)
class Smaller:
    """What became of a model whose dead units were taken out; the costs on the first rank alone."""

    report: ShrinkReport
    recipe: dict[str, Any]
    cost: CostReport | None


def example_of(pruner: Pruner | LearnedMasks) -> Any:
    """Return the example inputs that a pruner was given; None stands for the module's own."""
    return pruner.pattern.example_inputs if isinstance(pruner.pattern, CoupledPattern) else None


def make_smaller(
    trainer: pl.Trainer, model: pl.LightningModule, pruner: Pruner | LearnedMasks, title: str, folder: str | None = None
) -> Smaller:
    """Take dead units out of a model and of its averages in place, measure it beside what it was, and say so.

    A model that is taken apart over ranks is collected on each of them before, and is a plain module from then on.

    Raises whatever a step of it does; the trained model is saved in its full size before that, in the folder or
    where checkpoints go, and the error says where.
    """
    whole_again(model)
    masked, example_inputs = model.state_dict(), example_of(pruner)  # shrinking puts new tensors beside these
    try:
        larger = plain_copy(model)
        report, recipe = shrink_(model, example_inputs)
        trainer.strategy.optimizers = []  # they know the larger parameters
        shrink_averages(trainer, model, recipe)
        cost = compare(larger, model, example_inputs) if trainer.is_global_zero else None
    except BaseException as error:
        named = save_masked(trainer, masked, error, folder)
        if named is error:
            raise
        raise named from error
    if cost is not None:
        rank_zero_info(f"{title}: shrunk\n{report.table()}\n\n{cost.table()}")
    return Smaller(report, recipe, cost)
