"""Fits the net under Lightning as a layout takes it apart, and notes all there is to compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import LearnedMasks, Pruner, PruningCallback
from lightning_prune.shards import local, shard_of, whole
from lightning_prune.shrink import is_apart
from tests.distributed.apart import mesh_of, net, take_apart
from tests.distributed.regression import BATCHES, GLOBAL_BATCH, TIMEOUT, Loader, trainer_of


class Sharded(LightningModule):
    """Learns a function of its inputs, on the same global batches whatever the layout."""

    def __init__(self, layout: str = "1x1", dtype: torch.dtype = torch.float64, policy: bool = False) -> None:
        super().__init__()
        self.net = net(dtype)
        self.layout = layout
        self.policy = policy
        self.grads: list[dict[str, Tensor]] = []

    def configure_model(self) -> None:
        if self.layout in ("1x1", "ddp") or any(shard_of(parameter) for parameter in self.parameters()):
            return
        if self.layout == "hsdp":
            take_apart(self.net, *mesh_of("hsdp"))
        else:
            take_apart(self.net, cast(DeviceMesh, self.device_mesh), "data_parallel", "tensor_parallel", self.policy)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(next(self.parameters()).dtype))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self(batch[0]).to(batch[1].dtype), batch[1])

    def validation_step(self, batch: list[Tensor]) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.grads.append({n: _full(p.grad) for n, p in self.named_parameters() if p.grad is not None})

    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(BATCHES * GLOBAL_BATCH, 12, generator=generator, dtype=torch.float64)
        rank, ranks = 0, 1
        if self.layout != "1x1":
            of: Any = cast(Any, self.trainer.strategy).distributed_sampler_kwargs
            rank, ranks = of["rank"], of["num_replicas"]
        loader = Loader(TensorDataset(x, x[:, :3].sin()), GLOBAL_BATCH // ranks, sampler=range(rank, len(x), ranks))
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.ones(4, 12, dtype=torch.float64), torch.ones(4, 3)), 2)


def _full(tensor: Tensor) -> Tensor:
    return whole(local(tensor).clone(), shard_of(tensor))


class Seen(Callback):
    """Notes masks and thresholds after every update, and values at the end of the fit."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.masks: dict[int, dict[str, Tensor]] = {}
        self.thresholds: dict[int, dict[str, float]] = {}
        self.weights: dict[str, Tensor] = {}
        self.moments: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = self.pruning.pruner.last_update
        if last is not None and last not in self.masks:
            masks = self.pruning.pruner.masks
            self.masks[last] = {name: whole(weight.mask, weight.shard) for name, weight in masks.items()}
            self.thresholds[last] = {name: float(weight.threshold) for name, weight in masks.items()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = {name: _full(parameter).detach() for name, parameter in pl_module.named_parameters()}
        state = trainer.optimizers[0].state
        self.moments = [_full(v) for p in pl_module.parameters() for v in state[p].values() if v.dim()]


def fit(
    layout: str, folder: Path, name: str, pruner: Pruner | LearnedMasks, *callbacks: Callback, **options: Any
) -> dict[str, Any]:
    """Fit the net as a layout takes it apart, and return all there is to compare."""
    ckpt = options.pop("ckpt_path", None)
    sharded, policy = options.pop("sharded", True), options.pop("policy", False)
    model = options.pop("model", Sharded)(layout, options.pop("dtype", torch.float64), policy)
    pruning = PruningCallback(pruner, **options.pop("callback", {}))
    seen = Seen(pruning)
    saving = ModelCheckpoint(folder / name, "{step}", every_n_train_steps=1, save_top_k=-1)
    processes = 1 if layout == "1x1" else int(sys.argv[3])
    strategy = "auto" if layout == "1x1" else strategy_of(layout, sharded)
    trainer = trainer_of(strategy, processes, [pruning, seen, saving, *callbacks], **options)
    trainer.fit(model, ckpt_path=ckpt)
    assert pruning.report is not None
    return {
        "masks": seen.masks,
        "thresholds": seen.thresholds,
        "weights": seen.weights,
        "moments": seen.moments,
        "grads": model.grads,
        "report": pruning.report.to_dict(),
        "left": {} if is_apart(model) else model.state_dict(),
    }


def strategy_of(layout: str, sharded: bool) -> ModelParallelStrategy | DDPStrategy:
    if layout == "ddp":
        return DDPStrategy(timeout=TIMEOUT)
    data, tensor = (4, 1) if layout == "hsdp" else (int(number) for number in layout.split("x"))
    return ModelParallelStrategy(data, tensor, save_distributed_checkpoint=sharded, timeout=TIMEOUT)
