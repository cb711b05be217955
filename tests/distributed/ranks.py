"""Trains on several real processes; test_ddp.py runs it as a script.

    python ranks.py SCENARIO,SCENARIO FOLDER PROCESSES

Lightning starts the other processes, which run the same line. Every rank writes to FOLDER/SCENARIO.RANK.pt.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.loggers import CSVLogger
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
from lightning_prune.gate import SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer
from lightning_prune.pattern import Channel, Element
from lightning_prune.reconstruction import Greedy, Lasso, Reconstruction, ReduceReuse, SparseGPT
from lightning_prune.regularizer import L1, L2, NearThreshold
from lightning_prune.schedule import AccuracyBudget, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.targets import Found, Targets

BATCHES, GLOBAL_BATCH, EPOCHS = 6, 8, 2
STEPS = BATCHES * EPOCHS
TIMEOUT = timedelta(seconds=60)
SCHEDULE = Polynomial(0.8, 2, 9, 2)
UPDATES = [2, 4, 6, 8, 9]
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


class Loader(DataLoader[Any]):
    """Goes on in the middle of an epoch where a checkpoint was saved."""

    trainer: Trainer | None = None

    def __iter__(self) -> Any:
        loop = self.trainer.fit_loop.epoch_loop if self.trainer else None
        done = loop.batch_progress.current.ready if loop is not None and loop.restarting else 0
        yield from islice(super().__iter__(), done, None)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Regression(LightningModule):
    """In float64, so that sums over ranks in another order hardly differ."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3)).double()
        self.example_input_array = torch.zeros(2, 12, dtype=torch.float64)
        self.grads: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.grads.append({name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)

    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(BATCHES * GLOBAL_BATCH, 12, generator=generator, dtype=torch.float64)
        # Lightning's own sampler would shuffle: every rank takes its share of each global batch instead.
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        loader = Loader(TensorDataset(x, x[:, :3].sin()), GLOBAL_BATCH // ranks, sampler=range(rank, len(x), ranks))
        loader.trainer = self.trainer
        return loader


class Digests(Callback):
    """Notes the masks, thresholds and their digest as they are after every update."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.seen: dict[int, bytes] = {}
        self.masks: dict[int, dict[str, Tensor]] = {}
        self.thresholds: dict[int, dict[str, float]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        pruner = self.pruning.pruner
        if pruner.last_update is not None and pruner.last_update not in self.seen:
            self.seen[pruner.last_update] = pruner.masks.digest()
            self.masks[pruner.last_update] = {name: weight.mask for name, weight in pruner.masks.items()}
            self.thresholds[pruner.last_update] = {name: float(w.threshold) for name, w in pruner.masks.items()}


def trainer_of(
    strategy: Any, processes: int, callbacks: Sequence[Callback], logger: Any = False, **options: Any
) -> Trainer:
    """Return a trainer of some epochs on the CPU, that shows nothing; without a logger unless one is given."""
    return Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=strategy,
        max_epochs=EPOCHS,
        use_distributed_sampler=False,
        logger=logger,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def what_failed(error: Exception, trainer: Trainer, pruning: PruningCallback) -> dict[str, Any]:
    """Return the error that this rank gets, how far it came, and whether masks are left on the model."""
    return {
        "kind": type(error).__name__,
        "error": str(error),
        "step": trainer.global_step,
        "attached": pruning.pruner.attached,
    }


def fit(name: str, folder: Path, pruner: Pruner | LearnedMasks, processes: int, **options: Any) -> dict[str, Any]:
    """Fit a model whose start and random state differ between ranks, and return all there is to compare."""
    rank = 0
    if processes > 1:
        rank = int(os.environ.get("LOCAL_RANK", 0))
        torch.manual_seed(100 + rank)
    model, pruning = Regression(seed=rank), PruningCallback(pruner)
    digests = Digests(pruning)
    saving = ModelCheckpoint(
        folder / name, "{step}", every_n_train_steps=1, save_top_k=-1, enable_version_counter=False
    )
    trainer = trainer_of(
        DDPStrategy(timeout=TIMEOUT) if processes > 1 else "auto",
        processes,
        [digests, pruning, saving],
        logger=CSVLogger(folder / "csv", name=name, version=""),
        log_every_n_steps=1,
    )
    trainer.fit(model, **options)
    assert trainer.global_rank == rank
    assert pruning.report is not None
    return {
        "digests": digests.seen,
        "masks": digests.masks,
        "thresholds": digests.thresholds,
        "weights": model.state_dict(),
        "moments": trainer.optimizers[0].state_dict(),
        "grads": model.grads,
        "report": pruning.report.to_dict(),
        "random_state": torch.get_rng_state(),
        "left_on_the_module": [key for m in model.modules() for key in vars(m) if "mask" in key or "threshold" in key],
    }


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


class BreaksAWeight(Callback):
    """Puts a NaN into a weight on the last rank alone, right before the masks are updated."""

    def __init__(self, at: int, name: str) -> None:
        self.at, self.name = at, name

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.at and trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                pl_module.get_parameter(self.name).view(-1)[3] = float("nan")


class Picky:
    """A criterion that raises on the last rank alone, and on no other."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        if dist.get_rank() == dist.get_world_size() - 1:
            raise self.error
        return weight.abs()


class OneRankFindsNothing(Targets):
    """Rules that match nothing on the first rank."""

    def find(self, model: nn.Module, frozen: bool = False) -> Found:
        return (Targets(include=("nowhere",)) if dist.get_rank() == 0 else Targets()).find(model, frozen)


FAILURES: dict[str, Callable[[], tuple[Pruner | LearnedMasks, list[Callback]]]] = {
    "nan": lambda: (Pruner(SCHEDULE), [BreaksAWeight(4, "net.2.weight")]),
    "nan in units": lambda: (Pruner(SCHEDULE, pattern=Channel()), [BreaksAWeight(6, "net.0.weight")]),
    "nan between updates": lambda: (
        LearnedMasks(SCHEDULE, SoftThreshold(), None, Element()),
        [BreaksAWeight(5, "net.0.weight")],
    ),
    "criterion": lambda: (Pruner(SCHEDULE, Picky(KeyError("mine"))), []),
    "long text": lambda: (Pruner(SCHEDULE, Picky(ValueError("x" * 5000))), []),
    "before training": lambda: (Pruner(SCHEDULE, targets=OneRankFindsNothing()), []),
}


def fail(folder: Path, processes: int) -> dict[str, Any]:
    """Return the error that this rank gets where one rank fails, and that callbacks save afterwards on all."""
    found: dict[str, Any] = {}
    for name, make in FAILURES.items():
        pruner, breaking = make()
        place = folder / "fail" / name.replace(" ", "_")
        pruning = PruningCallback(pruner)
        saving = ModelCheckpoint(place, "{step}", every_n_train_steps=100, save_on_exception=True)
        callbacks = [*breaking, pruning, saving, OnExceptionCheckpoint(place)]
        trainer = trainer_of(DDPStrategy(timeout=TIMEOUT), processes, callbacks)
        model = Regression()
        try:
            trainer.fit(model)
        except Exception as error:
            found[name] = what_failed(error, trainer, pruning) | {
                "saved": sorted(file.name for file in place.glob("*.ckpt")) if trainer.global_rank == 0 else [],
                "cause": type(error.__cause__).__name__,
            }
    return found


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
