"""The start of a fit: how long the run is, and the pruner put on the module, on all ranks or on none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_prune import families
from lightning_prune.callbacks.agreement import check_overlap, on_ranks
from lightning_prune.callbacks.ending import example_of
from lightning_prune.callbacks.first_examples import described, first_examples, needed
from lightning_prune.callbacks.loss_scale import plain_optimizer
from lightning_prune.callbacks.own_processes import check_shapes_come_back
from lightning_prune.callbacks.rewind import Rewind, Rewinder, check_optimizers
from lightning_prune.callbacks.run_length import run_length
from lightning_prune.callbacks.run_pace import RunPace
from lightning_prune.callbacks.stepping import trained
from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner, collecting
from lightning_prune.pruning.checks import check_weights_tell
from lightning_prune.pruning.reconstructing import chooser
from lightning_prune.shards import check_whole
from lightning_prune.shrink import check_shrinkable

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.strategies import Strategy
    from torch import nn


def check_strategy(strategy: Strategy) -> None:
    """Raise ValueError if a strategy shards parameters, or lets others of its own stand for them, without DTensor."""
    if isinstance(strategy, families.every("strategies.FSDPStrategy", "strategies.DeepSpeedStrategy")):
        raise ValueError(
            f"{type(strategy).__name__} takes parameters apart in a way that cannot be pruned: use DDP "
            "(strategy='ddp'), or ModelParallelStrategy with fully_shard (FSDP2) in configure_model"
        )


def restores_late(trainer: pl.Trainer) -> bool:
    """Return whether a checkpoint's weights and states are loaded only after `on_fit_start`."""
    return bool(trainer.strategy.restore_checkpoint_after_setup and trainer.ckpt_path)


def check_collected_once(model: nn.Module) -> None:
    """Raise ValueError if a model is taken apart over ranks and too large to be collected at the end, to shrink."""
    if sum(parameter.numel() for parameter in model.parameters()) > collecting.MOST:
        instead = "shrink the model from its checkpoint instead"
        check_whole(model, f"shrink=True collects more than {collecting.MOST:,} values of", instead)


def _check(trainer: pl.Trainer, pruner: Pruner | LearnedMasks, rewind: Rewind | None, shrink: bool) -> None:
    """Raise ValueError if a trainer's strategy, optimizers or length do not go with what is asked for."""
    check_strategy(trainer.strategy)
    if rewind is not None:
        check_optimizers(rewind, trainer.lightning_module, map(plain_optimizer, trainer.optimizers))
    if trainer.max_steps == 0 and isinstance(pruner, Pruner):
        check_weights_tell(chooser(pruner), "max_steps=0 trains nothing")
    if shrink:
        check_collected_once(trainer.lightning_module)
        shrinks = "leave shrink out and call lightning_prune.shrink.shrink(model) when the fit has ended"
        check_shapes_come_back(trainer.strategy, "shrink=True makes the model smaller at the end", shrinks)


def put_on(
    trainer: pl.Trainer,
    title: str,
    pruner: Pruner | LearnedMasks,
    saved_pace: Mapping[str, int],
    others: Mapping[str, Pruner | LearnedMasks],
    tag: str,
    rewind: Rewind | None,
    rewound: dict[str, Any],
    shrink: bool,
) -> tuple[RunPace | None, Rewinder | None]:
    """Attach a pruner to the module that a trainer fits, and return what goes with it.

    Args:
        trainer: the one that fits.
        title: what an error on several ranks begins with.
        pruner: not attached yet; a state may wait in it.
        saved_pace: of the state, see `RunPace.state_dict`.
        others: the other callbacks' pruners by tag.
        tag: the callback's own.
        rewind: what it is to do after updates.
        rewound: the state of a `Rewinder` to go on from; empty for none.
        shrink: whether the module is to be made smaller at the end.

    Raises:
        ValueError: it cannot be done; the module is then as it was.
    """
    _check(trainer, pruner, rewind, shrink)
    module = trainer.lightning_module
    # Asking for the run's length builds the loader, which must not happen before a resumed loop knows its progress.
    saved = pruner.saved_length
    length = saved or run_length(trainer)
    pace = RunPace.of(trainer, length, saved_pace, saved is not None)
    trial = saved is not None or bool(trainer.fast_dev_run)  # pyright: ignore
    if pruner.saved_window is not None:
        rank_zero_info(f"{title}: resumed; {pruner.saved_window}")
    trial = trial or (pace is not None and pace.guesses(length, pruner))

    if isinstance(pruner, Pruner) and needed(pruner, module):
        inputs = on_ranks(trainer, title, lambda: first_examples(trainer, module))
        pattern: Any = pruner.pattern
        pruner.pattern = replace(pattern, example_inputs=inputs)
        rank_zero_info(
            f"{title}: {type(module).__name__} has no example_input_array, so its graph is traced with the first "
            f"examples of the training data, {described(inputs)}"
        )
    if isinstance(pruner, Pruner) and pruner.measures and trainer.world_size > 1:
        one, its = pruner, trained(trainer, module)  # all go by what the first rank has measured
        found = on_ranks(trainer, title, lambda: one.measure(module, its) if trainer.is_global_zero else None)
        pruner.measured = trainer.strategy.broadcast(found)

    def attach() -> Rewinder | None:
        if shrink:
            check_shrinkable(module, example_of(pruner))
        pruner.attach(module, length, trial, trained(trainer, module))
        try:
            check_overlap(pruner, tag, others)
            rewinder = Rewinder(rewind, cast(Pruner, pruner), module) if rewind else None
            if rewinder is not None:
                rewinder.load_state_dict(rewound)
            return rewinder
        except ValueError:
            pruner.withdraw()
            raise

    return pace, on_ranks(trainer, title, attach)
