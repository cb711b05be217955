"""Under manual optimization the window follows the steps that come, or it is said that it will not be over."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import Iterative, OneShot, Polynomial, Schedule
from tests.guarantees.helpers import Net, adamw, differences, fit, momentum, zeros

pytestmark = pytest.mark.filterwarnings("ignore:.*nearly nothing is left:UserWarning")  # of a layer of 64 weights


class Paced(Net):
    """Two networks, each with an optimizer that steps by hand as often in a batch as a function of the batch says."""

    def __init__(self, *paces: Any) -> None:
        super().__init__(norm=False)
        self.automatic_optimization = False
        self.paces = paces

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for act in self.in_step:
            act(self.trainer)
        optimizers: Any = self.optimizers()
        for optimizer, pace in zip(optimizers if len(self.paces) > 1 else [optimizers], self.paces, strict=True):
            for _ in range(pace(self.trainer.fit_loop.epoch_loop.total_batch_idx)):
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch_idx))
                optimizer.step()
        self.log("done", torch.tensor(1.0))

    def configure_optimizers(self) -> Any:
        halves = [momentum(self.net[0].parameters()), adamw(self.net[3].parameters())]
        return halves if len(self.paces) > 1 else adamw(self.parameters())


def every(k: int) -> Any:
    return lambda batch: int((batch + 1) % k == 0)


def times(k: int) -> Any:
    return lambda batch: k


PACES: dict[str, Any] = {
    "every second batch": (every(2),),
    "every 4 batches": (every(4),),
    "every 7 batches": (every(7),),
    "three steps a batch": (times(3),),
    "5 critic steps and one": (times(1), times(5)),
    "one critic step, a generator's every 5th batch": (every(5), times(1)),
    "many critic steps at first": (times(1), lambda batch: 20 if batch < 10 else 2),
    "few steps at first": (lambda batch: int(batch >= 40),),
}
BATCHES, EPOCHS = 20, 6


class Course(pl.Callback):
    """Notes of each update the share of the batches that were over, its step and the zeros."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.updates: dict[int, float] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = self.pruning.pruner.last_update
        if last is not None and last not in self.updates:
            done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
            self.updates[last] = done / (BATCHES * EPOCHS)


def course(model: Net, given: Schedule | float, **options: Any) -> tuple[PruningCallback, list[float], pl.Trainer]:
    callback = PruningCallback(given)
    record = Course(callback)
    settings: dict[str, Any] = {"max_epochs": EPOCHS} | options
    run = fit(model, callback, record, batches=BATCHES, **settings)
    return callback, list(record.updates.values()), run


@pytest.mark.parametrize("pace", PACES)
def test_G13_G17_shares_are_shares_of_the_run_whatever_its_pace(pace: str) -> None:
    model = Paced(*PACES[pace])
    _, updates, _ = course(model, 0.9)  # warnings are errors here
    assert sum(zeros(model).values()) == round(0.9 * 256)
    if "at first" not in pace:  # else nobody can know from the first batches
        assert updates[0] <= 0.15
        assert updates[-1] == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("given", [Polynomial(0.8, 0.0, 1.0, 0.1), OneShot(0.8, 0.5), Iterative(0.8, 0.1, 1.0, 3)])
def test_G13_the_end_of_the_run_is_the_end_of_the_window(pace: str, given: Schedule) -> None:
    model = Paced(*PACES[pace])
    callback, updates, run = course(model, given)
    assert sum(zeros(model).values()) == round(0.8 * 256)
    if given.end_step == 1.0:
        assert callback.pruner.resolved_schedule.end_step <= run.global_step
    elif "at first" not in pace:
        assert updates[0] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("most", [7, 40])
def test_G13_a_bound_in_steps_is_the_length_where_it_comes_first(most: int) -> None:
    model = Paced(*PACES["5 critic steps and one"])
    callback, _, run = course(model, Polynomial(0.8, 0.2, 1.0, 0.1), max_steps=most)
    assert sum(zeros(model).values()) == round(0.8 * 256)
    assert callback.pruner.resolved_schedule.end_step == most <= run.global_step


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        course(Paced(every(4)), 0.9)
    said = [r.getMessage() for r in caplog.records if "optimizer steps, not" in r.getMessage()]
    assert said == [
        "pruning: the run takes about 30 optimizer steps, not 120 (one a batch and optimizer): "
        "begin_step=2, end_step=12"
    ]


def ours(warned: list[warnings.WarningMessage]) -> list[str]:
    return [text for w in warned if (text := str(w.message)).startswith("pruning:")]


SLOW = r"end_step=100 will not be reached: \d+ optimizer steps in \d+ batches make about \d+ in the run's 120"


def test_G13_a_window_in_steps_that_will_not_be_over_is_said_in_time() -> None:
    model, seen = Paced(every(4)), list[int]()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model.after_batch.append(lambda run: seen.append(len(ours(warned))))
        course(model, Polynomial(0.8, 10, 100, 5))
    assert seen.index(1) < 12  # of 120 batches
    early, late = ours(warned)
    assert re.search(SLOW, early)
    assert "Set end_step to that at most" in early
    assert "less than the 80.00 % asked for; the run ended before end_step=100" in late


def test_G13_a_window_in_steps_that_will_not_even_begin_is_said_in_time() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        course(Paced(every(4)), OneShot(0.8, 60))
    early, late = ours(warned)
    assert "begin_step=60, and so end_step=60 will not be reached" in early
    assert "reached a sparsity of 0.00 %, less than the 80.00 % asked for" in late


def test_a_window_in_steps_past_what_was_guessed_is_no_error_where_the_steps_come() -> None:
    model = Paced(*PACES["5 critic steps and one"])
    callback, _, run = course(model, Polynomial(0.8, 300, 700, 20))  # warnings are errors here
    assert run.global_step == 720
    assert callback.report is not None
    assert callback.report.step == 700
    assert sum(zeros(model).values()) == round(0.8 * 256)


def test_rounds_that_do_not_fit_are_said() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        course(Paced(every(20)), Iterative(0.8, 0.1, 0.9, 9))
    early, late = ours(warned)
    assert "the run takes about 6 optimizer steps, not 120, and rounds=9 do not fit" in early
    assert "less than the 80.00 % asked for" in late


@pytest.mark.parametrize("pace", ["every 4 batches", "many critic steps at first", "5 critic steps and one"])
@pytest.mark.parametrize("cut", [3, 16, 47])
def test_G2_a_run_that_follows_is_resumed_exactly(pace: str, cut: int, tmp_path: Path) -> None:
    def save(run: pl.Trainer) -> None:
        if run.fit_loop.epoch_loop.total_batch_idx + 1 == cut:
            run.save_checkpoint(tmp_path / "cut.ckpt")

    class Early(pl.Callback):
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == cut:
                trainer.save_checkpoint(tmp_path / "early.ckpt")

    model, callback = Paced(*PACES[pace]), PruningCallback(0.9)
    model.after_batch.append(save)
    fit(model, Early(), callback, batches=BATCHES, max_epochs=EPOCHS)
    for name in ("cut", "early"):
        other, again = Paced(*PACES[pace]), PruningCallback(0.9)
        fit(other, again, batches=BATCHES, max_epochs=EPOCHS, ckpt=tmp_path / f"{name}.ckpt")
        assert differences(dict(model.state_dict()), dict(other.state_dict())) == []
        assert again.pruner.resolved_schedule == callback.pruner.resolved_schedule
        assert differences(callback.state_dict(), again.state_dict()) == []


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_G2_shares_keep_their_meaning_in_a_run_of_parts(tmp_path: Path) -> None:
    whole = PruningCallback(0.9)
    fit(Paced(every(4)), whole, batches=BATCHES, max_epochs=EPOCHS)
    stop = EarlyStopping("done", patience=0)
    with pytest.warns(UserWarning, match="the run ended before end_step=12"):
        run = fit(Paced(every(4)), PruningCallback(0.9), stop, max_epochs=EPOCHS, batches=BATCHES)
    run.save_checkpoint(tmp_path / "part.ckpt")
    model, callback = Paced(every(4)), PruningCallback(0.9)
    fit(model, callback, batches=BATCHES, max_epochs=3 * EPOCHS, ckpt=tmp_path / "part.ckpt")
    assert callback.pruner.resolved_schedule == whole.pruner.resolved_schedule


def test_automatic_optimization_is_not_watched() -> None:
    callback = PruningCallback(Pruner(Polynomial(0.8, 0.1, 0.5, 0.1)))
    fit(Net(), callback, batches=4, max_epochs=2)
    assert callback._pace is None
    assert "pace" not in callback.state_dict()
