"""G11: however a fit ends, plain parameters are left, and nothing else of pruning."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch.optim import Optimizer

from lightning_prune import Pruner, PruningCallback
from lightning_prune.regularizer import L1
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import (
    RAMP,
    Batches,
    Net,
    Units,
    adamw,
    assert_plain,
    fit,
    raise_at,
    ramp,
    sparsity,
    trainer,
    zeros,
)
from tests.guarantees.whole_units import channels

LESS = "ignore:.*(less than|past the end):UserWarning"


class Raise(pl.Callback):
    """Raise in one hook, from its n-th call on."""

    def __init__(self, hook: str, error: BaseException, calls: int = 1) -> None:
        self.left = calls

        def act(*_: Any, **__: Any) -> None:
            self.left -= 1
            if self.left <= 0:
                raise error

        setattr(self, hook, act)


def raising(hook: str, calls: int = 1) -> Callable[[], pl.Callback]:
    return lambda: Raise(hook, RuntimeError("on purpose"), calls)


class Kept:
    """Optimizers, kept to be looked at after the trainer has dropped them."""

    def __init__(self) -> None:
        self.optimizers: list[Optimizer] = []

    def __call__(self, parameters: Any) -> Optimizer:
        self.optimizers.append(adamw(parameters))
        return self.optimizers[-1]


@pytest.fixture
def interrupt_restored() -> Iterator[None]:
    """Lightning ignores SIGINT for good once it has seen one."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


ENDS: dict[str, dict[str, Any]] = {
    "normal": {"max_steps": 20},
    "epochs": {"max_epochs": 3},
    "max_time": {"max_time": timedelta(seconds=0.3), "max_epochs": -1},
    "fast_dev_run": {"fast_dev_run": True},
    "fast_dev_run of 4": {"fast_dev_run": 4},
}


@pytest.mark.filterwarnings(LESS)
@pytest.mark.parametrize("name", ENDS)
def test_G11_strip_when_the_fit_ends(name: str) -> None:
    kept, callback = Kept(), ramp(regularizer=L1(0.001))
    model = Net(kept)
    during: list[bool] = []
    model.in_step.append(lambda _: during.append("weight_mask" in vars(model.net[0])))
    fit(model, callback, **ENDS[name])
    assert during
    assert all(during)
    assert_plain(model, *kept.optimizers, callback=callback)
    assert callback.report is not None


@pytest.mark.filterwarnings(LESS)
def test_G11_strip_when_early_stopping_ends_the_run() -> None:
    callback = ramp()
    model = Net()
    run = fit(model, callback, EarlyStopping("loss", patience=0, stopping_threshold=100.0), max_epochs=9)
    assert run.global_step == 6
    assert_plain(model, *run.optimizers, callback=callback)
    assert sum(zeros(model).values()) == round(RAMP.sparsity(6) * 256)


def test_G11_a_trial_run_is_no_error_with_a_window_far_past_its_end() -> None:
    callback = PruningCallback(Polynomial(0.9, begin_step=5000, end_step=9000, pruning_frequency=100))
    model = Net()
    with pytest.warns(UserWarning, match=r"reached a sparsity of 0.00 %, less than the 90.00 %"):
        run = fit(model, callback, fast_dev_run=True)
    assert_plain(model, *run.optimizers, callback=callback)


def test_G11_a_run_of_no_steps_is_an_error_that_leaves_nothing() -> None:
    callback = ramp()
    model = Net()
    with pytest.raises(ValueError, match="at or past the end of the run"):
        fit(model, callback, max_steps=0)
    assert_plain(model, callback=callback)
    assert sum(zeros(model).values()) == 0


@pytest.mark.filterwarnings("ignore:.*past the end:UserWarning")
@pytest.mark.parametrize("options", [{"max_epochs": 0}, {"limit_train_batches": 0, "max_epochs": 2}], ids=str)
def test_G11_a_run_that_lightning_skips_leaves_nothing_and_is_said(options: dict[str, Any]) -> None:
    callback = ramp()
    model = Net()
    with pytest.warns(UserWarning, match="less than the 80.00 % asked for"):
        fit(model, callback, **options)
    assert_plain(model, callback=callback)
    assert sum(zeros(model).values()) == 0


BREAKS: dict[str, Callable[[], pl.Callback]] = {
    "on_fit_start": raising("on_fit_start"),
    "on_train_start": raising("on_train_start"),
    "on_train_epoch_start": raising("on_train_epoch_start", 2),
    "on_train_batch_start": raising("on_train_batch_start", 8),
    "on_before_backward": raising("on_before_backward", 8),
    "on_before_optimizer_step": raising("on_before_optimizer_step", 8),
    "on_train_batch_end": raising("on_train_batch_end", 8),
    "on_validation_start": raising("on_validation_start"),
    "on_validation_end": raising("on_validation_end"),
    "on_train_epoch_end": raising("on_train_epoch_end"),
    "on_train_end": raising("on_train_end"),
    "on_fit_end": raising("on_fit_end"),
    "setup": raising("setup"),
    "teardown": raising("teardown"),
}


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("hook", BREAKS)
def test_G11_strip_when_another_callback_raises(hook: str, first: bool) -> None:
    kept, callback, other = Kept(), ramp(), BREAKS[hook]()
    model = Net(kept)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, *((other, callback) if first else (callback, other)), val=1, max_epochs=4)
    assert_plain(model, *kept.optimizers, callback=callback)


@pytest.mark.parametrize("place", ["in_step", "after_batch", "in_validation"])
def test_G11_strip_when_the_module_raises(place: str) -> None:
    kept, callback = Kept(), ramp()
    model = Net(kept)

    def fail(run: pl.Trainer) -> None:
        if run.global_step >= 8:
            raise RuntimeError("on purpose")

    getattr(model, place).append(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, callback, val=1, max_epochs=4)
    assert_plain(model, *kept.optimizers, callback=callback)
    assert sum(zeros(model).values()) >= round(RAMP.sparsity(6) * 256)


def test_G11_strip_on_a_keyboard_interrupt(interrupt_restored: None) -> None:
    kept, callback = Kept(), ramp()
    model = Net(kept)
    model.in_step.append(raise_at(8, KeyboardInterrupt()))
    with pytest.raises(SystemExit):
        fit(model, callback, max_epochs=4)
    assert_plain(model, *kept.optimizers, callback=callback)
    assert sum(zeros(model).values()) == round(RAMP.sparsity(6) * 256)


def test_G11_a_score_that_is_not_finite_ends_the_run_and_leaves_a_plain_model() -> None:
    kept, callback = Kept(), ramp()
    model = Net(kept)

    def poison(run: pl.Trainer) -> None:
        if run.global_step == 7:
            model.net[3].weight.data[0, 0] = float("nan")

    model.in_step.append(poison)
    with pytest.raises(ValueError, match=r"net\.\d\.weight.*not finite"):
        fit(model, callback, max_epochs=4)
    assert_plain(model, *kept.optimizers, callback=callback)


@pytest.mark.parametrize("again", ["new_trainer", "same_trainer"])
def test_G11_after_an_exception_the_same_callback_prunes_a_new_model(again: str) -> None:
    callback = PruningCallback(Pruner(RAMP), rewind=0)
    broken = Net()
    broken.in_step.append(raise_at(8))
    run = trainer(callbacks=[callback], max_steps=20, limit_val_batches=0)
    with pytest.raises(RuntimeError, match="on purpose"):
        run.fit(broken, Batches(6), Batches(1))
    model, twin = Net(seed=5), Net(seed=5)
    fit(twin, PruningCallback(Pruner(RAMP), rewind=0), max_steps=20)
    if again == "new_trainer":
        run = trainer(callbacks=[callback], max_steps=20, limit_val_batches=0)
        run.fit(model, Batches(6), Batches(1))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    else:  # goes on at step 8 of the trainer
        run.fit(model, Batches(6), Batches(1))
    assert sparsity(model) == 205 / 256
    assert_plain(model, callback=callback)


def test_G11_after_a_fit_that_no_hook_ended_the_next_one_starts_afresh(tmp_path: Any) -> None:
    """A callback before ours that raises in its own `on_exception` keeps Lightning from calling ours."""
    callback = ramp()
    broken = Net()
    broken.in_step.append(raise_at(8))
    with pytest.raises(RuntimeError):
        fit(broken, raising("on_exception")(), callback, max_steps=20)
    whole, resumed = Net(), Net()
    run = fit(whole, ramp(), max_steps=14)
    run.save_checkpoint(tmp_path / "part.ckpt")
    fit(resumed, callback, max_steps=20, ckpt=tmp_path / "part.ckpt")
    assert sparsity(resumed) == 205 / 256
    assert_plain(resumed, callback=callback)
    assert_plain(broken)


# Whole units


@pytest.mark.filterwarnings(LESS)
@pytest.mark.usefixtures("interrupt_restored")
@pytest.mark.parametrize("how", ["end", "exception", "interrupt", "early stop", "fast_dev_run", "time"])
def test_G11_strip_always_happens(how: str) -> None:
    kept, callback = Kept(), channels(regularizer=L1(0.001))
    model = Units(kept)
    options: dict[str, Any] = {"max_steps": 20}
    more: list[pl.Callback] = []
    if how in ("exception", "interrupt"):
        error = RuntimeError("on purpose") if how == "exception" else KeyboardInterrupt()
        model.in_step.append(raise_at(8, error))
    if how == "early stop":
        more = [EarlyStopping("loss", patience=1, check_on_train_epoch_end=True, stopping_threshold=100.0)]
    if how == "fast_dev_run":
        options = {"fast_dev_run": 4}
    if how == "time":
        options = {"max_time": {"seconds": 1}, "max_epochs": -1}
    raised = (RuntimeError, KeyboardInterrupt, SystemExit)
    with pytest.raises(raised) if how in ("exception", "interrupt") else nullcontext():
        fit(model, callback, *more, **options)
    assert_plain(model, *kept.optimizers, callback=callback)
    assert callback.report is not None
