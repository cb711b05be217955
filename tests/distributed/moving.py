"""Runs on pieces that accumulate gradients, are killed, or move to DDP and back; test_sharded_resume.py runs it.

    python moving.py SCENARIO@LAYOUT,SCENARIO@LAYOUT FOLDER PROCESSES

Layouts and what is written are those of pieces.py.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from lightning_prune import Pruner
from lightning_prune.callbacks import Rewind
from lightning_prune.pattern import Block, Channel
from lightning_prune.regularizer import L2
from lightning_prune.rounds import PruningRounds
from lightning_prune.schedule import Polynomial
from lightning_prune.shrink import is_apart
from tests.distributed.apart import main
from tests.distributed.equal import IDEAS
from tests.distributed.fits import Sharded, fit, strategy_of
from tests.distributed.nets import Dense, Image
from tests.distributed.regression import SCHEDULE, trainer_of

EVERY_OTHER = Polynomial(0.8, 1, 5, 2)
"""Within the six steps of twelve batches, two of which make one."""

ACCUMULATED: dict[str, dict[str, Any]] = {
    "weights": {},
    "blocks": {"pattern": Block(2, 3)},
    "penalty": {"regularizer": L2(0.01)},
    "channels": {"pattern": Channel()},
}


def accumulate(layout: str, folder: Path) -> dict[str, Any]:
    """Step after every second batch; go on in the middle of an epoch, from both kinds of files."""
    runs: dict[str, Any] = {}
    for number, (name, ideas) in enumerate(ACCUMULATED.items()):
        options: dict[str, Any] = {"accumulate_grad_batches": 2, "sharded": number % 2 == 0, "model": Dense}
        label = f"{layout}-{name}"
        runs[name] = fit(layout, folder, label, Pruner(EVERY_OTHER, **ideas), **options)
        if layout != "1x1":
            options["ckpt_path"] = folder / label / "step=2.ckpt"
            runs[f"{name}-resumed"] = fit(layout, folder, f"{label}-2", Pruner(EVERY_OTHER, **ideas), **options)
    return runs


class Kills(Callback):
    """Kills processes at the start of a batch, as a machine does that runs out of memory."""

    def __init__(self, step: int, every: bool) -> None:
        self.step, self.every = step, every

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and (self.every or trainer.global_rank == trainer.world_size - 1):
            os.kill(os.getpid(), signal.SIGKILL)


KILLED = {"magnitude": Sharded, "second order": Sharded, "channels": Dense}


def pruner(name: str) -> Pruner:
    ideas: dict[str, Any] = {"pattern": Channel()} if name == "channels" else IDEAS[name]()
    return Pruner(SCHEDULE, **ideas)


def killed(layout: str, folder: Path, every: bool = True) -> dict[str, Any]:
    """Be killed after five steps: nothing comes back from here."""
    name = (folder / "name").read_text()
    sharded = name != "second order"
    return fit(layout, folder, "killed", pruner(name), Kills(5, every), model=KILLED[name], sharded=sharded)


def resumed(layout: str, folder: Path) -> dict[str, Any]:
    """Go on from the last file of a killed run, and the same run undisturbed."""
    name = (folder / "name").read_text()
    options: dict[str, Any] = {"model": KILLED[name], "sharded": name != "second order"}
    last = max((folder / "killed").iterdir(), key=lambda file: int(file.stem.partition("=")[2]))
    return {
        "last": last.name,
        "resumed": fit(layout, folder, "resumed", pruner(name), ckpt_path=last, **options),
        "undisturbed": fit(layout, folder, "undisturbed", pruner(name), **options),
    }


MOVED = ("magnitude", "second order", "reversible", "block")


def wrote(layout: str, folder: Path) -> dict[str, Any]:
    """Write the files that runs on another layout go on from."""
    return {name: fit(layout, folder, f"{layout}-{name}", pruner(name), sharded=False) for name in MOVED}


def moved(layout: str, folder: Path) -> dict[str, Any]:
    """Go on from what DDP and pieces have written before the third update."""
    return {
        f"{name} from {other}": fit(
            layout,
            folder,
            f"{layout}-{name}-{other}",
            pruner(name),
            ckpt_path=folder / f"{other}-{name}" / "step=5.ckpt",
        )
        for other in ("2x1", "ddp")
        for name in MOVED
    }


class Momentum(Dense):
    """Has another optimizer."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)


REWINDS: dict[str, tuple[Rewind, dict[str, Any]]] = {
    "start": (Rewind(0), {}),
    "step": (Rewind(3, after_last=True), {}),
    "drawn": (Rewind("init", seed=5), {}),
    "channels": (Rewind(1), {"pattern": Channel()}),
}


def rewind(layout: str, folder: Path) -> dict[str, Any]:
    """Put weights back after updates; go on from before the step to go back to, and from behind it."""
    runs: dict[str, Any] = {}
    for number, (name, (back, ideas)) in enumerate(REWINDS.items()):
        options: dict[str, Any] = {"callback": {"rewind": back}, "sharded": number % 2 == 0}
        options["model"] = Momentum if name == "step" else Dense
        label = f"{layout}-{name}"
        runs[name] = fit(layout, folder, label, Pruner(SCHEDULE, **ideas), **options)
        for stop in (2, 7) if layout != "1x1" else ():
            options["ckpt_path"] = folder / label / f"step={stop}.ckpt"
            runs[f"{name}-{stop}"] = fit(layout, folder, f"{label}-{stop}", Pruner(SCHEDULE, **ideas), **options)
    return runs


def rounds(layout: str, folder: Path) -> dict[str, Any]:
    """Prune and fine-tune in rounds, with a trainer for each that takes the model apart anew."""
    found: dict[str, Any] = {}
    for name, kind in (("dense", Dense), ("image", Image)):
        model = kind(layout)
        processes = 1 if layout == "1x1" else int(sys.argv[3])

        def make(processes: int = processes) -> Trainer:
            strategy = "auto" if layout == "1x1" else strategy_of(layout, True)
            return trainer_of(strategy, processes, [], enable_checkpointing=False)

        history = PruningRounds(0.6, maximum_rounds=2).run(model, make, folder=folder / f"{layout}-{name}", first=make)
        found[name] = {"left": history.left, "apart": is_apart(model), "weights": dict(model.state_dict())}
    return found


SCENARIOS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "accumulate": accumulate,
    "rewind": rewind,
    "rounds": rounds,
    "killed": killed,
    "one killed": lambda layout, folder: killed(layout, folder, every=False),
    "resumed": resumed,
    "wrote": wrote,
    "moved": moved,
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), SCENARIOS)
