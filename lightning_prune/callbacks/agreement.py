"""What must agree between callbacks of one Trainer, and between its ranks."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
import torch

from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner


def check_overlap(pruner: Pruner | LearnedMasks, tag: str, others: Mapping[str, Pruner | LearnedMasks]) -> None:
    """Raise ValueError if a pruner prunes a weight that another one, by its callback's tag, prunes as well."""
    mine = {id(w.parameter): name for name, w in pruner.masks.items()}
    for other, theirs in others.items():
        if not theirs.attached:
            continue
        both = [mine[id(w.parameter)] for w in theirs.masks.values() if id(w.parameter) in mine]
        if both:
            raise ValueError(
                f"two PruningCallbacks (tags {other!r} and {tag!r}) both prune {', '.join(both)}: "
                "tell them apart with Targets(include=..., exclude=...)"
            )


def check_ranks(trainer: pl.Trainer, pruner: Pruner | LearnedMasks, title: str) -> None:
    """Raise RuntimeError on every rank unless the masks are the same on all."""
    if trainer.world_size == 1:
        return
    mine = torch.frombuffer(bytearray(pruner.masks.digest()), dtype=torch.int64)
    every = trainer.strategy.all_gather(mine.to(trainer.strategy.root_device))
    if not bool((every == every.flatten()[0]).all()):
        raise RuntimeError(
            f"{title}: the masks differ between ranks after the update at step {pruner.last_update}; "
            "the weights or gradients that the criterion reads are not the same on all ranks"
        )
