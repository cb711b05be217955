"""Whether something has written to pruned weights since they were masked, looked at before each batch."""

from __future__ import annotations

import warnings

from lightning_prune.learned import LearnedMasks
from lightning_prune.masks import mend
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.waiting import some


class Guard:
    """Masks pruned weights before a batch if something has written to them behind the masks, and warns once.

    torch counts what is written to a tensor, and two numbers a weight tell whether that is more than the masks wrote.
    Writes through `.data` are not counted. So the values are looked at as well in the batch after each update; where
    that finds what the count has missed, they are from there on before every batch. A weight with other memory
    (`to_empty`, `weight.data = ...`) was replaced: it is masked and not warned of.

    Args:
        title: what the warning calls the pruner.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._update: int | None = None
        self._uncounted = False
        self._warned = False
        self._update_behind: int | None = None
        self._late = False
        self._began = False

    def look(self, pruner: Pruner | LearnedMasks) -> None:
        """Mask what is alive again before a batch, and name it in a warning the first time."""
        self._began = True
        closely = self._uncounted or pruner.last_update != self._update
        self._update = pruner.last_update
        masks = pruner.masks  # each time it is asked for, it looks whether the model's weights are still those
        counted = [name for name, weight in masks.items() if weight.written_to]
        refilled = {name for name in counted if masks[name].refilled}
        looked = list(masks.values()) if closely else [masks[name] for name in counted]
        alive = [weight.target.name for weight in mend(looked)] if looked else []
        self._uncounted |= not set(alive) <= set(counted)
        written = [name for name in alive if name not in refilled]
        if written and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._title}: pruned weights of {some(written)} were not zero any more when a batch began: a hook "
                "behind this callback writes to them (the module's own on_train_batch_end comes after all callbacks). "
                "They are set to zero before each batch",
                stacklevel=3,
            )

    def look_behind(self, pruner: Pruner | LearnedMasks) -> None:
        """Name what was alive in a batch's first forward, once; its backward needs the values as they are."""
        if self._late or not self._began:
            return
        self._began = False  # forwards to come in this batch are of a step begun: LBFGS writes between them
        closely = pruner.last_update != self._update_behind
        self._update_behind = pruner.last_update
        alive = pruner.alive(closely)
        if alive:
            self._late = True
            warnings.warn(
                f"{self._title}: pruned weights of {some(alive)} were not zero in a forward: something writes to them "
                "between a batch's start and its forward (the module's own on_train_batch_start, which comes after all "
                "callbacks, or training_step). They are set to zero after each step, too late for that forward: write "
                "in on_train_batch_end instead",
                stacklevel=3,
            )
