"""The model that ranks train, and all there is to compare of a fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.learned import LearnedMasks
from lightning_prune.schedule import Polynomial

BATCHES, GLOBAL_BATCH, EPOCHS = 6, 8, 2
STEPS = BATCHES * EPOCHS
TIMEOUT = timedelta(seconds=180)
"""A rank that is late on a busy machine is waited for."""
SCHEDULE = Polynomial(0.8, 2, 9, 2)
UPDATES = [2, 4, 6, 8, 9]


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
