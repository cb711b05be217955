"""No tensor of a step outlives it: as many are there after forty steps as after twenty, and none after the run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import DynamicGates, Pruner, PruningCallback
from lightning_prune.criterion import ActivationTaylor, Taylor
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer
from lightning_prune.pattern import Channel, Element
from lightning_prune.regrowth import Gradient
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import ERK
from tests.helpers import ideas

RAMP = Polynomial(0.5, 2, 48, 4)
"""Updates at 2, 6, 10 and so on: the steps looked at, 18 and 38, are both those of an update."""

CHANNEL = Channel()


def pruned(**nouns: Any) -> Callable[[], Any]:
    given: dict[str, Any] = {"schedule": RAMP, "scope": ERK()}
    return lambda: Pruner(**(given | nouns))


def of(noun: str, pattern: Any, *names: str) -> dict[str, Callable[[], Any]]:
    """Return a way for each idea of a noun, or for those named, with the pattern."""
    return {
        f"{case.id}, {type(pattern).__name__}": pruned(**{noun: case.values[0], "pattern": pattern})
        for case in ideas(noun)
        if not names or case.id in names
    }


WAYS: dict[str, Callable[[], Any]] = {
    "learned weights": lambda: LearnedMasks(RAMP, mask_regularizer=Binarizer(None)),
    "learned units": lambda: LearnedMasks(RAMP, pattern=CHANNEL, mask_regularizer=Binarizer(None)),
    "gates": lambda: DynamicGates(RAMP),
    "reversible": pruned(reversible=True),
    "regrowth": pruned(regrowth=Gradient(until=60)),
    **of("criterion", CHANNEL),
    **of("criterion", Element(), "taylor", "movement", "obs", "wanda", "inbound"),
    **of("reconstruction", Element(), "sparse_gpt"),
    **of("reconstruction", CHANNEL, "greedy", "lasso", "reduce_reuse"),
    **of("regularizer", CHANNEL),
}


class Task(pl.LightningModule):
    """A conv net with a residual sum; counts the tensors that are there behind two of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 3)
        self.example_input_array = torch.zeros(1, 2, 6, 6)
        self.there: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((x + self.body(x)).mean((2, 3)))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.global_step in (18, 38):  # the update behind the step before is made
            self.there.append(tensors())
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(each), Tensor) for each in gc.get_objects())


def run(engine: Any) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(400, 2, 6, 6, generator=generator), torch.arange(400) % 3)
    task = Task()
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[PruningCallback(engine)], **quiet)
    trainer.fit(task, DataLoader(data, batch_size=8))
    return task.there


FAST = ("learned units", "gates", "activation_taylor, Channel", "lasso, Channel")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in WAYS])
@pytest.mark.filterwarnings("ignore:pruning")
def test_as_many_tensors_after_forty_steps_as_after_twenty(name: str) -> None:
    early, late = run(WAYS[name]())
    assert late <= early + 2, "a schedule's last memories may come later"


@pytest.mark.parametrize(
    ("criterion", "pattern"), [(ActivationTaylor(), CHANNEL), (Taylor(), Element())], ids=["units", "weights"]
)
def test_nothing_is_left_of_a_run(criterion: Any, pattern: Any) -> None:
    before = tensors()
    run(Pruner(RAMP, criterion, pattern, ERK()))
    between = tensors()
    run(Pruner(RAMP, criterion, pattern, ERK()))
    assert tensors() <= between, f"{between - before} after the first run"
