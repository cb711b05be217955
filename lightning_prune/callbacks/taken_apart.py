"""Strategies that take models apart: what is seen of a model before, and how one that is whole again is saved."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning_prune import families
from lightning_prune.callbacks import averages
from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner
from lightning_prune.shards import is_plain

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.strategies import Strategy


def before_apart(trainer: pl.Trainer, module: pl.LightningModule, pruner: Pruner | LearnedMasks) -> None:
    """Look at a module that `configure_model` is about to take apart: a coupled pattern's units are found in it now.

    One without layers, or on the meta device, has none to show yet.

    Raises:
        ValueError: a callback averages weights: Lightning's do so with whole ones alone, and end in errors of torch.
    """
    if not isinstance(trainer.strategy, families.every("strategies.ModelParallelStrategy")):
        return
    if averaging := averages.names(trainer):
        raise ValueError(
            f"{averaging} keeps averages of whole weights, and {type(trainer.strategy).__name__} takes them "
            "apart over ranks: leave it out, or train under DDP"
        )
    parameters = list(module.parameters())
    if isinstance(pruner, Pruner) and parameters and all(is_plain(p) and not p.is_meta for p in parameters):
        pruner.find_units(module)


@contextmanager
def one_file(strategy: Strategy) -> Generator[None, None, None]:
    """Have a strategy that saves a folder of pieces save one file meanwhile: of a module that is whole again."""
    kept = vars(strategy).get("_save_distributed_checkpoint")
    if kept:
        vars(strategy)["_save_distributed_checkpoint"] = False
    try:
        yield
    finally:
        if kept:
            vars(strategy)["_save_distributed_checkpoint"] = kept
