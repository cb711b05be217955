"""The progress bar, the log, and loggers other than wandb."""

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_prune import Pruner, PruningCallback
from lightning_prune.regularizer import L1
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.callbacks.logging.conftest import Classifier, MakeTrainer

NAMES = ["net.0.weight", "net.2.weight", "net.4.weight"]


def sparsity(model: Classifier) -> float:
    weights = [model.get_parameter(name).detach() for name in NAMES]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def rows(folder: Path, name: str) -> list[tuple[int, float]]:
    """Return (step, value) of a column of the metrics file."""
    with (folder / "csv" / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}, {"val_check_interval": 2}], ids=str)
def test_the_progress_bar_shows_the_sparsity_after_every_batch(
    make_trainer: MakeTrainer, options: dict[str, Any]
) -> None:
    """What `trainer.progress_bar_metrics` says is what the weights say."""
    model = Classifier()
    trainer = make_trainer([PruningCallback(Polynomial(0.9, 3, 12, 2))], **options)
    shown: list[float] = []

    def look() -> None:
        shown.append(float(trainer.progress_bar_metrics["sparsity"]))
        assert shown[-1] == pytest.approx(sparsity(model), abs=1e-7)

    model.after_batch = look
    trainer.fit(model)
    assert len(shown) == 40
    assert shown[0] == 0.0


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_the_progress_bar_of_a_resumed_run(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """From its first batch on, also in the middle of an epoch and after the last update."""

    def run(model: Classifier, **options: Any) -> None:
        saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer([PruningCallback(OneShot(0.5, 3)), saving], enable_checkpointing=True)
        model.after_batch = lambda: shown.append(trainer.progress_bar_metrics.get("sparsity"))
        trainer.fit(model, **options)

    shown: list[Any] = []
    run(Classifier())
    assert shown == [0.0] * 2 + [0.5] * 38
    shown.clear()
    run(Classifier(), ckpt_path=tmp_path / "step=15.ckpt")
    assert shown == [0.5] * 25


def test_two_callbacks_on_the_progress_bar(make_trainer: MakeTrainer) -> None:
    """G27: the tag tells them apart."""
    first = PruningCallback(Pruner(OneShot(0.5, 3), targets=Targets(include=("net.0.weight",))), tag="in")
    second = PruningCallback(Pruner(OneShot(0.8, 5), targets=Targets(include=("net.2.weight",))), tag="mid")
    trainer = make_trainer([first, second])
    trainer.fit(Classifier())
    assert trainer.progress_bar_metrics["sparsity/in"] == 0.5
    assert trainer.progress_bar_metrics["sparsity/mid"] == pytest.approx(0.8)


def test_the_metrics_file(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G19: a CSVLogger alone: the file holds the whole history, and its last sparsity is that of the model."""
    model = Classifier()
    callback = PruningCallback(Pruner(Polynomial(0.9, 3, 12, 2), regularizer=L1(1e-3)))
    make_trainer([callback], logger=CSVLogger(tmp_path, name="csv", version=""), log_every_n_steps=5).fit(model)
    assert [step for step, _ in rows(tmp_path, "pruning/sparsity")] == [3, 5, 7, 9, 11, 12]
    assert rows(tmp_path, "pruning/sparsity")[-1] == (12, sparsity(model))
    assert rows(tmp_path, "pruning/target_sparsity")[-1] == (12, 0.9)
    assert [s for s, _ in rows(tmp_path, "pruning/regularizer")] == [3, 5, 7, 9, 10, 11, 12, 15, 20, 25, 30, 35, 40]
    assert sum(value for _, value in rows(tmp_path, "pruning/changed")) == pytest.approx(sparsity(model))
    for name in NAMES:
        assert len(rows(tmp_path, f"pruning/sparsity/{name}")) == len(rows(tmp_path, f"pruning/threshold/{name}")) == 6


def test_one_row_a_step_under_accumulation(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G17: batches that do not step log nothing twice."""
    callback = PruningCallback(Pruner(OneShot(0.5, 3), regularizer=L1(1e-3)))
    logger = CSVLogger(tmp_path, name="csv", version="")
    make_trainer([callback], logger=logger, accumulate_grad_batches=3).fit(Classifier())
    assert [step for step, _ in rows(tmp_path, "pruning/regularizer")] == list(range(1, 17))


def test_without_loggers(make_trainer: MakeTrainer) -> None:
    """Nothing to write to is no error, and no logger has to be there for a regularizer."""
    callback = PruningCallback(Pruner(OneShot(0.5, 3), regularizer=L1(1e-3)))
    make_trainer([callback], log_every_n_steps=0).fit(Classifier())
    assert callback.report is not None
    assert callback.report.sparsity == 0.5


def test_plan_and_report_are_in_the_log(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    """At the start what will be pruned and what not and why; at the end what was."""
    with caplog.at_level(logging.INFO, "pytorch_lightning"):
        callback = PruningCallback(Polynomial(0.9, 3, 12, 2), tag="mine")
        make_trainer([callback]).fit(Classifier())
    messages = [record.message for record in caplog.records if record.message.startswith("pruning [mine]")]
    assert len(messages) == 2
    plan, report = messages
    assert "begin_step=3, end_step=12, pruning_frequency=2" in plan
    assert "90.00 %" in plan
    assert "left whole, bias: net.0.bias, net.2.bias, net.4.bias" in plan
    assert callback.report is not None
    assert callback.report.table() in report
    for text in (plan, report):
        assert all(name in text for name in NAMES)
