"""Where in the training data a resumed run goes on: at the batch that comes next, or with a warning that says so."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_prune import families

if TYPE_CHECKING:
    import pytorch_lightning as pl


class ResumedData:
    """The places in the training data that checkpoints hold, one for each loader that can say its own.

    Lightning saves and loads the place of a loader that has `state_dict` and `load_state_dict`, as torchdata's
    `StatefulDataLoader` has. It does not load it where the loader was made before the checkpoint's progress was read,
    which is what asking for the run's length does (in `configure_optimizers`; the pruner does it too), nor at an
    epoch's end. Where an epoch's last batch wrote the checkpoint, it takes the loader's end for the whole next epoch.
    After fit it saves the place of a new iterator.
    """

    def __init__(self) -> None:
        self._loaded: list[Any] | None = None  # of the checkpoint that the next training goes on from
        self._last: list[Any] = []  # when the latest training ended

    def read(self, checkpoint: dict[str, Any]) -> None:
        """Note the places in a checkpoint that a run is about to go on from."""
        loop = checkpoint.get("loops", {}).get("fit_loop")
        self._loaded = None if loop is None else loop.get("state_dict", {}).get("combined_loader", [])

    def go_on(self, trainer: pl.Trainer) -> None:
        """Put the loaders where the checkpoint says, once training is about to begin; warn if that cannot be done."""
        states, self._loaded = self._loaded, None
        if states is None:
            return
        _take_up(trainer, states)
        message = _begins_again(trainer, states) or (_leaves_out(trainer) if any(states) else "")
        if message:
            rank_zero_warn(f"the resumed run will not have the bits of one that was not cut: {message}")

    def keep(self, trainer: pl.Trainer) -> None:
        """Note the places at which training ends, before the loaders' iterators are gone."""
        loader = trainer.fit_loop._combined_loader  # pyright: ignore[reportPrivateUsage]
        running = trainer.fit_loop._data_fetcher is not None  # pyright: ignore[reportPrivateUsage]
        self._last = copy.deepcopy(loader._state_dicts()) if loader is not None and running else []  # pyright: ignore[reportPrivateUsage]

    def write(self, trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
        """Put them into a checkpoint that is written after training."""
        loop = checkpoint.get("loops", {}).get("fit_loop")
        if self._last and loop is not None and trainer.fit_loop._data_fetcher is None:  # pyright: ignore[reportPrivateUsage]
            loop["state_dict"]["combined_loader"] = self._last


def _take_up(trainer: pl.Trainer, states: list[Any]) -> None:
    """Load the places, in the order of the epoch that the run is in, and begin the next epoch where one is over.

    A loader's iterator is made anew for either: for the place, which it starts at, and for the epoch after it. So it is
    where workers have begun to fetch, before the loader's sampler was told the epoch.
    """
    fit = trainer.fit_loop
    loader, fetcher = fit._combined_loader, fit._data_fetcher  # pyright: ignore[reportPrivateUsage]
    if loader is None or fetcher is None:
        return
    placed = any(states)  # an empty one belongs to a loader that finds its place by itself
    if not placed and not any(getattr(part, "num_workers", 0) for part in loader.flattened):
        return
    set_epoch = families.part(families.of(trainer), "loops.fit_loop._set_sampler_epoch")
    for part in loader.flattened:
        set_epoch(part, fit.epoch_progress.current.processed)  # pyright: ignore[reportAttributeAccessIssue]
    if placed:
        loader._load_state_dicts(states)  # pyright: ignore[reportPrivateUsage]
        fit._combined_loader_states_to_load = []  # pyright: ignore[reportPrivateUsage]
    iter(fetcher)
    if not placed or not _all_done(trainer) or math.isinf(trainer.num_training_batches):
        return  # a loader without a length has been drawn from to its end, and begins anew by itself
    # Lightning either ends the old epoch first, and then begins the next one itself, or draws from what it has at once.
    batches = _batches(trainer)
    if not fit.epoch_loop.restarting or batches.completed < batches.processed:
        iter(fetcher)


def _begins_again(trainer: pl.Trainer, states: list[Any]) -> str:
    """Say that an epoch's data come from its first batch again, unless Lightning will say so itself."""
    done = _batches(trainer).processed
    combined = trainer.fit_loop._combined_loader  # pyright: ignore[reportPrivateUsage]
    if done == 0 or _all_done(trainer) or combined is None:
        return ""
    resumable = all(
        hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict") for loader in combined.flattened
    )
    if resumable and states:
        return ""
    # Lightning compares the steps done with an epoch's steps: it misses batches inside a step, several optimizers and
    # loaders without a length.
    batches = trainer.num_training_batches
    steps = batches if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
    if not resumable and not math.isinf(batches) and trainer.global_step % steps != 0:
        return ""
    why = (
        "the checkpoint holds no place of the loader" if resumable else "the loader has no state_dict to keep its place"
    )
    return (
        f"{done} batches of the epoch were done, and the epoch's data begin again with the first ({why}). Go on from a "
        "checkpoint of an epoch's end, or from one written with a loader that keeps its place, such as torchdata's "
        "StatefulDataLoader"
    )


def _leaves_out(trainer: pl.Trainer) -> str:
    """Say that the batch is left out which was drawn but not done when the checkpoint was written."""
    batches = _batches(trainer)
    if batches.ready > batches.processed:
        why, remedy = "it was written inside a step", "Go on from a checkpoint of a step's end"
    elif math.isinf(trainer.num_training_batches) and batches.processed > 0 and not _all_done(trainer):
        why = "of a loader without a length Lightning fetches one batch ahead"
        remedy = "Give the data set a length, or go on from a checkpoint of an epoch's end"
    else:
        return ""
    return (
        f"in the checkpoint the loader's place is one batch too far, as {why}: the epoch's batch {batches.processed}, "
        f"counted from 0, is left out. {remedy}"
    )


def _all_done(trainer: pl.Trainer) -> bool:
    """Tell whether the last batch of an epoch was done when the checkpoint was written."""
    batches = _batches(trainer)
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and batches.processed == batches.ready


def _batches(trainer: pl.Trainer) -> Any:
    """How many batches of the epoch were drawn (`ready`) and done (`processed`)."""
    return trainer.fit_loop.epoch_loop.batch_progress.current
