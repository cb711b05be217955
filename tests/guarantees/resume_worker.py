"""Runs to be cut and resumed, by name, and a process of its own to resume them in.

python -m tests.guarantees.resume_worker JOBS.json      (a list of keyword arguments of `run`)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import Rewind
from lightning_prune.criterion import FirstOrderDelta, Random, SecondOrderDelta
from lightning_prune.gate import HardConcrete, SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer, ExpectedSparsity
from lightning_prune.pattern import Channel, Element
from lightning_prune.regularizer import NearThreshold
from lightning_prune.schedule import Geometric, Hold, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.selection import Histogram
from lightning_prune.targets import Targets
from tests.guarantees.helpers import RAMP, Net, Units, adamw, copied, fit, momentum, raise_at, ramp
from tests.guarantees.loaders import LOADERS

STEPS = 20
BATCHES = 6
ACCUMULATE = 4


@dataclass
class Case:
    callbacks: Callable[[], list[pl.Callback]]
    optimizer: Any = adamw
    accumulate: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    model: type[Net] = Net


def _only(*, rewind: Any = None, **ideas: Any) -> Callable[[], list[pl.Callback]]:
    return lambda: [PruningCallback(Pruner(ideas.get("schedule", RAMP), **_without(ideas, "schedule")), rewind=rewind)]


def _learned(*, ema: bool = False, **ideas: Any) -> Callable[[], list[pl.Callback]]:
    return lambda: [PruningCallback(LearnedMasks(**ideas)), *([EMAWeightAveraging(decay=0.8)] if ema else [])]


def _without(ideas: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in ideas.items() if k != key}


def _two() -> list[pl.Callback]:
    first = Pruner(RAMP, targets=Targets(include=("net.0",), exclude=("bias",)))
    second = Pruner(Polynomial(0.5, 4, 12, 2), Random(), targets=Targets(include=("net.3.weight",)))
    return [PruningCallback(first, tag="first"), PruningCallback(second, tag="second")]


class Sparse(Net):
    """A small network that comes with zeros: three in four of the one layer, one in three of the other."""

    def __init__(self, optimizer: Any = adamw) -> None:
        super().__init__(optimizer)
        with torch.no_grad():
            self.net[0].weight.flatten()[torch.arange(192) % 4 > 0] = 0.0
            self.net[3].weight[:, ::3] = 0.0


CASES = {
    "hold": Case(_only(schedule=Hold()), model=Sparse),
    "adamw": Case(_only()),
    "momentum": Case(_only(), optimizer=momentum),
    "random": Case(_only(criterion=Random(seed=5))),
    "first_order": Case(_only(criterion=FirstOrderDelta(0.9))),
    "second_order": Case(_only(criterion=SecondOrderDelta(0.9))),
    "reversible": Case(_only(reversible=True), optimizer=momentum),
    "reversible_second_order": Case(_only(criterion=SecondOrderDelta(0.5), reversible=True)),
    "rewind_0": Case(_only(rewind=0)),
    "rewind_2": Case(_only(rewind=2), optimizer=momentum),
    "rewind_init": Case(_only(rewind=Rewind("init", after_last=True))),
    "histogram": Case(_only(selection=Histogram(nbins=50, threshold_decay=0.5))),
    "near_threshold": Case(_only(regularizer=NearThreshold(0.01))),
    "two_callbacks": Case(_two),
    "shares": Case(_only(schedule=Geometric(0.9, 0.1, 0.7, 0.15))),
    "accumulated": Case(_only(), accumulate=ACCUMULATE),
    "channels": Case(_only(pattern=Channel()), model=Units),
    "channels_first_order": Case(
        _only(pattern=Channel(multiple=2), criterion=FirstOrderDelta(0.9), scope=Uniform()), momentum, model=Units
    ),
    "channels_reversible": Case(_only(pattern=Channel(), reversible=True), momentum, model=Units),
    "learned": Case(_learned(lr=0.1, mask_regularizer=Binarizer(0.5)), model=Units),
    "learned_thresholds": Case(
        _learned(schedule=RAMP, gate=SoftThreshold(), mask_regularizer=None, pattern=Element(), lr=0.02), model=Units
    ),
    "learned_schedule": Case(
        _learned(schedule=RAMP, gate=HardConcrete(), mask_regularizer=ExpectedSparsity()), momentum, model=Units
    ),
    "learned_ema": Case(_learned(ema=True, lr=0.1, mask_regularizer=Binarizer(0.5)), model=Units),
    "learned_schedule_ema": Case(
        _learned(ema=True, schedule=RAMP, gate=HardConcrete(), mask_regularizer=ExpectedSparsity()), model=Units
    ),
    "learned_thresholds_ema": Case(
        _learned(ema=True, schedule=RAMP, gate=SoftThreshold(), mask_regularizer=None, pattern=Element(), lr=0.02),
        model=Units,
    ),
    "ema": Case(lambda: [ramp(), EMAWeightAveraging(decay=0.8)]),
}


class Accumulating(Net):
    """All of the gradient is in the last batch of each step, so that gradients lost on resume are no loss."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        last = batch_idx % ACCUMULATE == ACCUMULATE - 1 or batch_idx == BATCHES * ACCUMULATE - 1
        return loss * float(last)


class Save(Checkpoint):
    """Save after a number of batches. As a `Checkpoint` it comes after all other callbacks."""

    def __init__(self, path: str, at: Sequence[int]) -> None:
        self.path = path
        self.at = at

    def look(self, trainer: pl.Trainer) -> None:
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if batches in self.at:
            trainer.save_checkpoint(self.path.format(batches))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.look(trainer)


class SaveEarly(pl.Callback):
    """The same from a user's callback, which comes before the pruning callback: that step's update is still to come."""

    def __init__(self, path: str, at: Sequence[int]) -> None:
        self.save = Save(path, at)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.save.look(trainer)


class Probe(Checkpoint):
    """Everything at the end of training, before the masks are stripped."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        prunings = [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # pyright: ignore[reportAttributeAccessIssue]
        self.state = {
            "global_step": trainer.global_step,
            "model": copied(dict(pl_module.state_dict())),
            "pruning": [copied(c.state_dict()) for c in prunings],
            "masks": [{n: w.mask.clone() for n, w in c.pruner.masks.items()} for c in prunings],
            "last_update": [c.pruner.last_update for c in prunings],
            "optimizer": copied(trainer.optimizers[0].state_dict()["state"]),
        }


def run(
    case: str,
    folder: str,
    ckpt: str | None = None,
    steps: int = STEPS,
    save_at: Sequence[int] = (),
    save_after_fit: str | None = None,
    save_every: int | None = None,
    fail_at: int | None = None,
    kill_at: int | None = None,
    out: str | None = None,
    data: str = "stateful",
) -> dict[str, Any]:
    """Run a case from the start or a checkpoint; return, and write to `out`, all there is at the end of training."""
    made = CASES[case]
    torch.manual_seed(0 if ckpt is None else 1)  # of the order of the samples, where the checkpoint does not say it
    model = (Accumulating if made.accumulate > 1 else made.model)(made.optimizer)
    probe = Probe()
    callbacks = [*made.callbacks(), probe]
    if save_at:
        callbacks += [
            Save(f"{folder}/{case}-{{}}.ckpt", save_at),
            SaveEarly(f"{folder}/{case}-early-{{}}.ckpt", save_at),
        ]
    if save_every:
        callbacks.append(
            ModelCheckpoint(folder, f"{case}-every-{{step}}", every_n_train_steps=save_every, save_top_k=-1)
        )
    if fail_at is not None:
        callbacks.append(OnExceptionCheckpoint(folder, f"{case}-exception"))
        callbacks.append(ModelCheckpoint(f"{folder}/{case}-saved", save_on_exception=True))
        model.in_step.append(raise_at(fail_at))
    if kill_at is not None:
        model.in_step.append(lambda t: os.kill(os.getpid(), signal.SIGKILL) if t.global_step == kill_at else None)
    ran = fit(
        model,
        *callbacks,
        batches=BATCHES * made.accumulate,
        accumulate_grad_batches=made.accumulate,
        max_steps=steps,
        max_epochs=100,
        ckpt=ckpt,
        loader=LOADERS[data],
        **made.options,
    )
    if save_after_fit:
        ran.save_checkpoint(save_after_fit)
    if out:
        torch.save(probe.state, out)
    return probe.state


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        run(**job)
