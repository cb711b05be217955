"""What prunes, for people who compare runs: each pruner's ideas and its schedule in steps, beside the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner

if TYPE_CHECKING:
    import pytorch_lightning as pl

_PLAIN = (bool, int, float, str, type(None))


def described(pruner: Pruner | LearnedMasks) -> dict[str, Any]:
    """Return an attached pruner as plain values: numbers as they are, ideas as their constructor calls.

    The schedule is the resolved one: shares of the run have become steps.
    """
    found: dict[str, Any] = {"kind": type(pruner).__name__}
    for key in inspect.signature(type(pruner)).parameters:
        if key == "example_inputs":  # of gates: a tensor, for nobody to read
            continue
        value = getattr(pruner, key, None)
        found[key] = value if isinstance(value, _PLAIN) else repr(value)
    schedule = pruner.resolved_schedule
    steps = {"begin_step": schedule.begin_step, "end_step": schedule.end_step}
    return found | {"schedule": repr(schedule), "final_sparsity": schedule.final_sparsity} | steps


def log_hyperparameters(
    trainer: pl.Trainer, pruning: Mapping[str, Mapping[str, Any]], more: Mapping[str, Any] | None = None
) -> None:
    """Give all loggers what prunes, under `pruning`, and what else there is; the user's own of the same name stay.

    The user's are given again: TensorBoard shows what it was given first, and Lightning gives it theirs later.

    Args:
        trainer: at the start of a fit.
        pruning: by tag, `described`; the tag "" stands for `pruning` itself.
        more: other hyper-parameters, such as the config of a command line.
    """
    if not trainer.loggers or not trainer.is_global_zero:
        return
    ours: dict[str, Any] = dict(pruning.get("", {})) | {tag: dict(each) for tag, each in pruning.items() if tag}
    sources: list[Any] = [trainer.datamodule, trainer.lightning_module]  # pyright: ignore[reportAttributeAccessIssue]
    theirs: dict[str, Any] = {}
    for source in sources:
        if source is not None and source._log_hyperparams:
            theirs |= {key: value for key, value in source.hparams_initial.items() if key != "_class_path"}
    for logger in trainer.loggers:
        logger.log_hyperparams({**(more or {}), "pruning": ours, **theirs})
