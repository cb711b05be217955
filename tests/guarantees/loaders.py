"""Training data whose place matters: a loader that begins again gives a resumed run other batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_prune.tasks.data.loaders import training_loader
from lightning_prune.tasks.data.tensors import Tensors
from tests.guarantees.helpers import draw

SIZE = 8


def _rows(batches: int) -> tuple[torch.Tensor, torch.Tensor]:
    return draw(7, torch.zeros(0), size=batches * SIZE)


def stateful(run: pl.Trainer, batches: int) -> Any:
    return StatefulDataLoader(TensorDataset(*_rows(batches)), SIZE, shuffle=True)


def workers(run: pl.Trainer, batches: int) -> Any:
    return StatefulDataLoader(TensorDataset(*_rows(batches)), SIZE, shuffle=True, num_workers=2)


def recipes(run: pl.Trainer, batches: int) -> Any:
    return training_loader(Tensors(*_rows(batches)), SIZE, 5, run)


def plain(run: pl.Trainer, batches: int) -> Any:
    return DataLoader(TensorDataset(*_rows(batches)), SIZE, shuffle=True)


LOADERS: dict[str, Callable[[pl.Trainer, int], Any]] = {
    "stateful": stateful,
    "workers": workers,
    "recipes": recipes,
    "plain": plain,
}
