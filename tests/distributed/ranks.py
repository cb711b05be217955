"""Trains on several real processes; test_ddp.py runs it as a script.

    python ranks.py SCENARIO,SCENARIO FOLDER PROCESSES

Lightning starts the other processes, which run the same line. Every rank writes to FOLDER/SCENARIO.RANK.pt.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import (
    ActivationTaylor,
    Criterion,
    Entropy,
    FirstOrderDelta,
    Magnitude,
    MeanActivation,
    OutputVariance,
    Random,
    SecondOrderDelta,
    Taylor,
    Wanda,
)
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer
from lightning_prune.pattern import Channel, Element
from lightning_prune.reconstruction import Greedy, Lasso, Reconstruction, ReduceReuse, SparseGPT
from lightning_prune.regularizer import L1, L2, NearThreshold
from lightning_prune.schedule import AccuracyBudget
from lightning_prune.scope import Uniform
from tests.distributed.one_fails import fail
from tests.distributed.regression import SCHEDULE, TIMEOUT, Regression, fit, trainer_of

STOPS = {"before the first update": 1, "at an update": 4, "after an update": 7, "at the last": 9}

CRITERIA: dict[str, Criterion] = {
    "magnitude": Magnitude(),
    "random": Random(),
    "first_order_delta": FirstOrderDelta(0.5),  # pyright: ignore[reportAssignmentType]
    "second_order_delta": SecondOrderDelta(0.5),  # pyright: ignore[reportAssignmentType]
    "taylor": Taylor(window=2),
    "wanda": Wanda(window=2),
}
OF_UNITS: dict[str, Criterion] = CRITERIA | {
    "output_variance": OutputVariance(window=2),
    "mean_activation": MeanActivation(window=2),
    "entropy": Entropy(bins=5, window=2),
    "activation_taylor": ActivationTaylor(window=2),
}
REBUILT: dict[str, tuple[Reconstruction, Element | Channel]] = {
    "sparse_gpt": (SparseGPT(window=2), Element()),
    "reduce_reuse": (ReduceReuse(window=2), Channel()),
    "greedy": (Greedy(window=2), Channel()),
    "lasso": (Lasso(window=2), Channel()),
}
RESUMED = ("magnitude", "second_order_delta", "wanda")
REGULARIZERS = {"l1": L1(0.01), "l2": L2(0.01), "near_threshold": NearThreshold(0.01)}


def train(folder: Path, processes: int, names: Iterable[str] = CRITERIA) -> dict[str, Any]:
    """Prune by every criterion."""
    return {name: fit(name, folder, Pruner(SCHEDULE, CRITERIA[name]), processes) for name in names}


def regularize(folder: Path, processes: int) -> dict[str, Any]:
    """Prune with every regularizer."""
    return {
        name: fit(name, folder, Pruner(SCHEDULE, regularizer=regularizer), processes)
        for name, regularizer in REGULARIZERS.items()
    }


def structure(folder: Path, processes: int) -> dict[str, Any]:
    """Prune hidden units by every criterion."""
    return {
        name: fit(f"units-{name}", folder, Pruner(SCHEDULE, OF_UNITS[name], Channel()), processes) for name in OF_UNITS
    }


def rebuild(folder: Path, processes: int) -> dict[str, Any]:
    """Prune with every reconstruction."""
    return {
        name: fit(f"rebuilt-{name}", folder, pruner, processes)
        for name, (idea, pattern) in REBUILT.items()
        for pruner in [Pruner(SCHEDULE, pattern=pattern, scope=Uniform(), reconstruction=idea)]
    }


def learn(folder: Path, processes: int) -> dict[str, Any]:
    """Learn masks, and go on from the middle."""
    whole = fit("learned", folder, _learned(), processes)
    file = folder / "learned" / "step=5.ckpt"
    return {"whole": whole, "resumed": fit("learned-resumed", folder, _learned(), processes, ckpt_path=file)}


def _learned() -> LearnedMasks:
    return LearnedMasks(SCHEDULE, mask_regularizer=Binarizer(None), lr=0.1)


def resume(folder: Path, processes: int) -> dict[str, Any]:
    """Go on from checkpoints that `train` wrote."""
    runs: dict[str, Any] = {}
    for name in RESUMED:
        for stop, step in STOPS.items():
            file = folder / name / f"step={step}.ckpt"
            runs[f"{name}-{stop}"] = fit(
                f"{name}-{stop}", folder, Pruner(SCHEDULE, CRITERIA[name]), processes, ckpt_path=file
            )
    return runs


class Validated(Regression):
    """Validates each rank on other data, and logs its metric unreduced."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/error", nn.functional.mse_loss(self.net(batch[0]), batch[1]), sync_dist=False)

    def val_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(50 + self.trainer.global_rank)
        x = torch.randn(16, 12, generator=generator, dtype=torch.float64)
        return DataLoader(TensorDataset(x, x[:, :3].sin()), 16)


def told(folder: Path, processes: int) -> dict[str, Any]:
    """Prune as far as a metric allows that is another one on each rank."""
    torch.manual_seed(100 + int(os.environ.get("LOCAL_RANK", 0)))
    schedule = AccuracyBudget("val/error", 0.02, "min", begin_step=6, end_step=12, share=0.4, patience=0)
    model, pruning = Validated(), PruningCallback(schedule)
    strategy = DDPStrategy(timeout=TIMEOUT)
    trainer = trainer_of(strategy, processes, [pruning], enable_checkpointing=False, val_check_interval=2)
    trainer.fit(model)
    assert pruning.report is not None
    return {
        "weights": model.state_dict(),
        "report": pruning.report.to_dict(),
        "metric": float(trainer.callback_metrics["val/error"]),
        "asked": pruning.pruner.resolved_schedule.final_sparsity,
    }


class OneRankDiffers(Callback):
    """Changes a weight on the last rank alone, as a careless hook of a user might."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5 and trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                next(pl_module.parameters()).mul_(-3.0).add_(0.5)


def differ(folder: Path, processes: int) -> dict[str, Any]:
    """Return the error that this rank gets where the ranks' weights differ, and the state it is left in."""
    model, pruning = Regression(), PruningCallback(Pruner(SCHEDULE))
    callbacks = [OneRankDiffers(), pruning]
    trainer = trainer_of(DDPStrategy(timeout=TIMEOUT), processes, callbacks, enable_checkpointing=False)
    try:
        trainer.fit(model)
    except RuntimeError as error:
        return {"error": str(error), "step": trainer.global_step, "attached": pruning.pruner.attached}
    return {"error": "none"}


SCENARIOS: dict[str, Callable[[Path, int], dict[Any, Any]]] = {
    "train": train,
    "regularize": regularize,
    "structure": structure,
    "rebuild": rebuild,
    "learn": learn,
    "resume": resume,
    "told": told,
    "differ": differ,
    "fail": fail,
}


def main(scenarios: str, folder: Path, processes: int) -> None:
    torch.set_num_threads(1)
    for scenario in scenarios.split(","):
        result = SCENARIOS[scenario](folder, processes)
        torch.save(result, folder / f"{scenario}.{os.environ.get('LOCAL_RANK', '0')}.pt")
    if dist.is_initialized():  # its threads may else outlive the interpreter, which then ends in an abort
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
