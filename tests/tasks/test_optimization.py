"""The learning rate's course, and the rate a real run steps with."""

from collections.abc import Callable
from functools import partial
from math import cos, pi
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import SGD, Optimizer

from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.digits import Digits
from lightning_prune.tasks.nets import MLP
from lightning_prune.tasks.optimization import LearningRate, adamw

shares = st.floats(0, 1)


@pytest.fixture
def make_short(make_trainer: Callable[..., Trainer]) -> Callable[..., Trainer]:
    """A trainer of 5 batches an epoch."""
    return partial(make_trainer, limit_train_batches=5, limit_val_batches=0)


class Rates(Callback):
    """Writes down the rate of every optimizer step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


@given(warmup=shares, hold=shares, steps=st.integers(1, 300))
def test_factor_rises_then_never_rises_again(warmup: float, hold: float, steps: int) -> None:
    course = LearningRate(warmup, hold)
    factors = [course.factor(step, steps) for step in range(steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_factor_by_hand() -> None:
    course = LearningRate(warmup=0.1, hold=0.5)
    factors = [course.factor(step, 20) for step in range(21)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2:11] == [1.0] * 9
    assert factors[15] == pytest.approx(0.5)
    assert factors[20] == 0
    assert course.factor(25, 20) == 0


@pytest.mark.parametrize(("name", "share"), [("warmup", -0.1), ("hold", 1.5), ("hold", float("nan"))])
def test_shares_are_shares(name: str, share: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={share}"):
        LearningRate(**{name: share})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_steps_with_these_rates_whatever_it_accumulates(
    make_short: Callable[..., Trainer], accumulate: int
) -> None:
    rates = Rates()
    model = Classifier(MLP((64, 10)), lr=0.4)
    make_short(max_epochs=2, accumulate_grad_batches=accumulate, callbacks=[rates]).fit(model, Digits())
    steps = {1: 10, 2: 6}[accumulate]  # 5 batches an epoch, the last one alone steps too
    assert rates.rates == pytest.approx([0.2 * (1 + cos(pi * step / steps)) for step in range(steps)])


def test_a_run_without_an_end_needs_a_constant_rate(make_short: Callable[..., Trainer]) -> None:
    with pytest.raises(ValueError, match=r"max_epochs=-1, max_steps=-1.*hold=1\.0"):
        make_short(max_epochs=-1).fit(Classifier(MLP((64, 10))), Digits())

    rates = Rates()
    trainer = make_short(max_epochs=-1, callbacks=[rates, StopAfter(7)])
    trainer.fit(Classifier(MLP((64, 10)), lr=0.4, hold=1.0), Digits())
    assert set(rates.rates) == {0.4}


class StopAfter(Callback):
    """Ends a run that has no end of its own."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop = trainer.global_step >= self.batches


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("meta", None)])
def test_adamw_is_fused_on_the_cpu_only(device: str, fused: bool | None) -> None:
    weights = [nn.Parameter(torch.zeros(2, device=device)) for _ in range(2)]
    optimizer = adamw(iter(weights), lr=0.3, weight_decay=0.2)
    (group,) = optimizer.param_groups
    assert (group["fused"], group["lr"], group["weight_decay"]) == (fused, 0.3, 0.2)
    assert all(found is weight for found, weight in zip(group["params"], weights, strict=True))


def test_the_optimizer_is_the_given_one(make_short: Callable[..., Trainer]) -> None:
    trainer = make_short(max_steps=1)
    trainer.fit(Classifier(MLP((64, 10)), lr=0.3, weight_decay=0.2, optimizer=SGD), Digits())
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.3, 0.2)


@pytest.mark.parametrize(("name", "value"), [("lr", 0.0), ("weight_decay", -0.1), ("hold", 2.0)])
def test_a_classifier_names_the_argument_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Classifier(MLP((64, 10)), **{name: value})  # pyright: ignore[reportArgumentType]
