"""Whether there is a metric of the name that a checkpoint looks at: as soon as that can be known."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from lightning_prune import families

if TYPE_CHECKING:
    import pytorch_lightning as pl


def check_monitor(trainer: pl.Trainer, callback: Any) -> None:
    """Raise MisconfigurationException if validation should have logged a metric, and has not.

    Before training Lightning validates on a few batches (`num_sanity_val_steps`), so the names of validation are known
    then. A name that is not among them may still be one of training: those are known once an epoch has ended. So this
    refuses what is named like a metric of validation: with the same first word, or nearly the same name.

    Args:
        trainer: whose validation before training has just ended.
        callback: has `monitor`, the name, or None.
    """
    monitor: str | None = callback.monitor
    there = sorted(map(str, trainer.callback_metrics))
    if monitor is None or not there or monitor in there:
        return
    near = difflib.get_close_matches(monitor, there, n=1, cutoff=0.7)
    if not near and _first_word(monitor) not in {_first_word(name) for name in there}:
        return
    meant = f"did you mean {near[0]!r}? " if near else ""
    misconfigured = families.part(families.of(trainer), "utilities.exceptions.MisconfigurationException")
    raise misconfigured(
        f"{type(callback).__name__} could not find the monitored key {monitor!r}: {meant}The validation before "
        f"training logs {', '.join(there)}. If it is logged outside of that one alone: Trainer(num_sanity_val_steps=0)"
    )


def _first_word(name: str) -> str:
    return re.split(r"[^A-Za-z]", name, maxsplit=1)[0].lower()
