"""What the tests of rounds share: digits, a small residual network, and trainers that leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.digits import Digits

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
    "limit_train_batches": 12,
}


class Net(nn.Module):
    """Two convolutions that are added, one of its own before them, and a linear layer: groups of 10, 12 and 20."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 10, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(10)
        self.left = nn.Conv2d(10, 12, 3, stride=2, padding=1)
        self.right = nn.Conv2d(10, 12, 1, stride=2)
        self.hidden = nn.Linear(12 * 16, 20)
        self.head = nn.Linear(20, 10)
        self.drop = nn.Dropout(0.1)
        self.example_input = torch.linspace(-1, 1, 128).view(2, 1, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.left(x) + self.right(x)).flatten(1)
        return self.head(self.drop(torch.relu(self.hidden(x))))


FIRST, ADDED, HIDDEN = "net.first.weight", "net.left.weight", "net.hidden.weight"


@pytest.fixture
def model() -> Classifier:
    return new_model()


def new_model(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(Net(), lr=3e-3, hold=1.0)


@pytest.fixture
def data() -> Digits:
    return Digits(batch_size=32)


MakeTrainer = Callable[[], pl.Trainer]


@pytest.fixture
def made() -> list[pl.Trainer]:
    """All trainers that `make_trainer` has made."""
    return []


@pytest.fixture
def make_trainer(made: list[pl.Trainer]) -> MakeTrainer:
    def make() -> pl.Trainer:
        made.append(pl.Trainer(**QUIET))
        return made[-1]

    return make
