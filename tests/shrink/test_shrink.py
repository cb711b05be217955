"""`PruningCallback(shrink=True)`: a smaller plain model at the end of fit, from which everything goes on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import Magnitude
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from lightning_prune.shrink import load_shrunk
from tests.guarantees.helpers import trainer


class ConvNet(pl.LightningModule):
    def __init__(self, example: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, 4),
        )
        self.fail = False
        if example:
            self.example_input_array = torch.randn(1, 3, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.fail and self.global_step == 12:
            raise RuntimeError("on purpose")
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(0, 4, (64,), generator=generator)), 8)


def shrinking(**options: Any) -> PruningCallback:
    return PruningCallback(Pruner(Polynomial(0.6, 2, 10, 2), pattern=Channel(), **options), shrink=True)


def entries(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def fitted(callback: PruningCallback, **options: Any) -> tuple[pl.Trainer, ConvNet]:
    model = ConvNet()
    run = trainer(callbacks=[callback], max_epochs=2, **options)
    run.fit(model, data())
    return run, model


def test_G9_the_model_is_smaller_and_its_outputs_are_those_of_the_stripped_one() -> None:
    plain = PruningCallback(Pruner(Polynomial(0.6, 2, 10, 2), pattern=Channel()))
    _, stripped = fitted(plain)
    callback = shrinking()
    _, smaller = fitted(callback)
    assert callback.shrink_report is not None
    assert callback.shrink_report.parameters == (entries(stripped), entries(smaller))
    assert entries(smaller) < 0.6 * entries(stripped)
    assert all(bool((p != 0).any()) for p in smaller.parameters())
    x = torch.randn(7, 3, 8, 8)
    with torch.no_grad():
        difference = (stripped.eval()(x) - smaller.eval()(x)).abs().max()
    assert difference < 1e-5
    assert callback.shrink_report.relative < 1e-4
    assert callback.cost_report is not None
    assert callback.cost_report.predicted_speedup > 1.5


def test_fine_tuning_goes_on_with_the_same_trainer_and_with_another() -> None:
    run, model = fitted(shrinking())
    before, size = copy.deepcopy(model.state_dict()), entries(model)
    run.fit_loop.max_epochs = 3
    run.fit(model, data())
    assert entries(model) == size
    assert not torch.equal(before["net.0.weight"], model.state_dict()["net.0.weight"])
    trainer(max_epochs=1).fit(model, data())
    assert entries(model) == size


def test_a_shrunk_model_can_be_pruned_and_shrunk_again() -> None:
    callback = shrinking()
    _, model = fitted(callback)
    size = entries(model)
    trainer(callbacks=[callback], max_epochs=2).fit(model, data())
    assert entries(model) < size


def test_a_checkpoint_of_the_smaller_model_loads_into_a_plain_one(tmp_path: Path) -> None:
    run, model = fitted(shrinking())
    run.save_checkpoint(tmp_path / "end.ckpt")
    loaded = load_shrunk(ConvNet(), tmp_path / "end.ckpt")
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(model.eval()(x), loaded.eval()(x))
    model.train()
    run.fit_loop.max_epochs = 3  # the recipe stays with the checkpoints that follow
    run.fit(model, data())
    run.save_checkpoint(tmp_path / "later.ckpt")
    again = load_shrunk(ConvNet(), tmp_path / "later.ckpt")
    assert torch.equal(model.eval()(x), again.eval()(x))


def test_a_checkpoint_without_a_recipe_says_so(tmp_path: Path) -> None:
    run, _ = fitted(PruningCallback(0.5))
    run.save_checkpoint(tmp_path / "end.ckpt")
    with pytest.raises(ValueError, match="no recipe of a shrunk model"):
        load_shrunk(ConvNet(), tmp_path / "end.ckpt")


def test_G11_a_run_that_broke_off_is_stripped_and_not_shrunk() -> None:
    model, callback = ConvNet(), shrinking()
    model.fail, size = True, entries(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer(callbacks=[callback], max_epochs=2).fit(model, data())
    assert (entries(model), callback.shrink_report, callback.pruner.attached) == (size, None, False)


def test_G13_a_module_without_example_inputs_is_refused_before_training() -> None:
    model = ConvNet(example=False)
    before = copy.deepcopy(model.state_dict())
    in_order = list(data())  # no data set that could be asked for an example
    for pruner in (Pruner(Polynomial(0.5, 2, 10, 2)), Pruner(Polynomial(0.5, 2, 10, 2), pattern=Channel())):
        run = trainer(callbacks=[PruningCallback(pruner, shrink=True)], max_epochs=2)
        with pytest.raises(ValueError, match=r"ConvNet has no example inputs.*example_input_array"):
            run.fit(model, in_order)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_dead_units_of_an_unstructured_run_are_taken_out_too() -> None:
    model = ConvNet()
    callback = PruningCallback(Pruner(Polynomial(0.9, 2, 10, 2), criterion=Magnitude()), shrink=True)
    run = trainer(callbacks=[callback], max_epochs=2)
    run.fit(model, data())
    assert callback.shrink_report is not None
    assert callback.shrink_report.relative < 1e-4
