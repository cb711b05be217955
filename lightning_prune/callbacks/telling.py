"""A schedule that follows a validation metric: told it by the trainer, on every rank the same."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_prune.callbacks import averages
from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner
from lightning_prune.report import percent
from lightning_prune.schedule import AccuracyBudget

if TYPE_CHECKING:
    import pytorch_lightning as pl


def check_validates(trainer: pl.Trainer, pruner: Pruner | LearnedMasks) -> None:
    """Raise ValueError if a schedule follows a validation metric, and the run has no validation, or averages in it."""
    if not isinstance(pruner, Pruner) or pruner.waits_for_metric is None:
        return
    if not trainer.enable_validation:
        raise ValueError(
            f"{pruner.schedule} follows {pruner.waits_for_metric!r}, and the run has no validation: give the Trainer "
            "val_dataloaders and the module a validation_step, or use a schedule of steps"
        )
    if averaging := averages.names(trainer):
        raise ValueError(
            f"{pruner.schedule} remembers the weights that were validated, and {averaging} validates others: "
            "leave it out"
        )


def check_metric(trainer: pl.Trainer, pruner: Pruner | LearnedMasks, late: bool = False) -> None:
    """Raise ValueError, which names those there are, if validation has not logged the metric that a schedule follows.

    Args:
        trainer: a validation of which has just ended.
        pruner: with the schedule.
        late: whether it was one of the run; that before training may be left out.
    """
    metric = pruner.waits_for_metric if isinstance(pruner, Pruner) else None
    there = sorted(name for name in map(str, trainer.callback_metrics) if name.partition("/")[0] != "sparsity")  # ours
    if metric is None or metric in there or not (there or late):
        return
    near = difflib.get_close_matches(metric, there, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    logs = ", ".join(there) or "nothing"
    raise ValueError(f"{pruner.schedule} follows {metric!r}, which is not logged: {meant}Validation logs {logs}")


def tell(trainer: pl.Trainer, pruner: Pruner | LearnedMasks, title: str) -> None:
    """Tell a schedule that asks for one the metric of the validation that has just ended, that of the first rank."""
    metric = pruner.waits_for_metric if isinstance(pruner, Pruner) else None
    if metric is None or not isinstance(pruner, Pruner) or trainer.state.fn != "fit" or trainer.sanity_checking:
        return
    check_metric(trainer, pruner, late=True)
    value = float(trainer.strategy.broadcast(float(trainer.callback_metrics[metric])))
    before = pruner.resolved_schedule
    pruner.tell(trainer.global_step, value)
    now = pruner.resolved_schedule
    if getattr(now, "back", False) or now.last_update(trainer.global_step) != before.last_update(trainer.global_step):
        rank_zero_info(f"{title}: {said(pruner, value)}")


def said(pruner: Pruner, value: float) -> str:
    """Return what a validation came to, and what follows, in a line."""
    now, metric = pruner.resolved_schedule, pruner.waits_for_metric
    asked = percent(now.final_sparsity)
    good = percent(getattr(now, "good_sparsity", 0.0))
    if getattr(now, "back", False):
        rest = f"on to {asked} from there" if not getattr(now, "done", False) else "no more is tried"
        return f"{metric}={value:g} is out of the budget; back to the weights at {good}, {rest}"
    return f"{metric}={value:g} at {good} is within the budget; next {asked}"


def settle(trainer: pl.Trainer, pruner: Pruner | LearnedMasks, title: str) -> None:
    """End a run with the weights of the last good validation, and say which those are."""
    if not isinstance(pruner, Pruner) or pruner.waits_for_metric is None or not pruner.attached:
        return
    moved = pruner.settle(trainer.global_step, trainer.optimizers)
    history, now = pruner.told, pruner.resolved_schedule
    good = getattr(now, "good", None)
    if good is None:
        rank_zero_info(f"{title}: no validation was within the budget, and nothing is pruned")
        return
    step, value = history[good]
    reference = getattr(now, "reference", None)
    idea = pruner.schedule
    drop = f", {idea.drop:g} allowed" if isinstance(idea, AccuracyBudget) else ""
    kept = " (put back)" if moved else ""
    rank_zero_info(
        f"{title}: the sparsest weights within the budget are those of step {step}{kept}: "
        f"{pruner.waits_for_metric}={value:g}, dense {reference:g}{drop}"
    )
