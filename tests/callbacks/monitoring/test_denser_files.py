"""What a plain ModelCheckpoint has chosen is counted when a fit ends; a metric that is not there is said before it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import SparseModelCheckpoint
from lightning_prune.pattern import Row
from lightning_prune.schedule import OneShot, Polynomial
from tests.callbacks.monitoring.conftest import MakeTrainer, Regression


class Told(Regression):
    """Logs a score of its own: `best_at` is the epoch that scores best."""

    def __init__(self, best_at: int, only_later: bool = False) -> None:
        super().__init__()
        self.best_at, self.only_later = best_at, only_later

    def validation_step(self, batch: list[Tensor]) -> None:
        if not (self.only_later and self.trainer.sanity_checking):
            self.log("val_score", float(abs(self.current_epoch - self.best_at)))
        self.log("val_loss", 1.0)


def texts(make_trainer: MakeTrainer, model: Regression, *callbacks: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(callbacks, **options).fit(model)
    return [str(w.message) for w in caught if "best file" in str(w.message)]


@pytest.mark.parametrize(
    ("pruner", "best_at", "says"),
    [
        (Pruner(Polynomial(0.98, 8, 48, 8)), 3, True),
        (Pruner(OneShot(0.5, 20), pattern=Row()), 1, True),
        (Pruner(Polynomial(0.98, 8, 48, 8)), 8, False),
        (Pruner(OneShot(0.5, 20), pattern=Row()), 3, False),
        (Pruner(OneShot(0.0, 20)), 1, False),
    ],
    ids=["98 %", "rows", "98 %, late", "rows, late", "dense"],
)
def test_G23_a_best_file_from_before_the_last_update_is_named(
    make_trainer: MakeTrainer, tmp_path: Path, pruner: Pruner, best_at: int, says: bool
) -> None:
    plain = ModelCheckpoint(tmp_path, monitor="val_score", save_weights_only=best_at == 1)
    found = texts(make_trainer, Told(best_at), PruningCallback(pruner), plain)
    assert len(found) == says
    if says:
        weight = torch.load(plain.best_model_path, weights_only=True)["state_dict"]["net.weight"]
        share = f"{100 * float((weight == 0).float().mean()):.2f} %"
        assert f"{plain.best_model_path}, has a sparsity of {share}, less than the" in found[0]
        assert "lightning_prune.callbacks.SparseModelCheckpoint(monitor='val_score', mode='min') in its" in found[0]


def test_of_several_each_is_named_and_without_a_metric_none(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    files = [
        ModelCheckpoint(tmp_path / "one", monitor="val_score"),
        ModelCheckpoint(tmp_path / "two", monitor="val_score", mode="max"),
        ModelCheckpoint(tmp_path / "newest"),
        SparseModelCheckpoint(tmp_path / "ours", monitor="val_score"),
    ]
    found = texts(make_trainer, Told(2), PruningCallback(Polynomial(0.75, 8, 48, 8)), *files)
    assert [str(tmp_path / "one") in text for text in found] == [True]  # the tenth epoch, the worst, is sparse


def test_a_run_that_fell_short_itself_is_said_once(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    plain = ModelCheckpoint(tmp_path, monitor="val_score")
    assert texts(make_trainer, Told(5), PruningCallback(Polynomial(0.9, 8, 200, 8)), plain, max_epochs=6) == []


def test_a_file_that_cannot_be_read_is_named(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Holds(Told):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = ValueError

    plain = ModelCheckpoint(tmp_path, monitor="val_score")
    (found,) = texts(make_trainer, Holds(1), PruningCallback(OneShot(0.5, 20)), plain)
    assert "whether the best file of ModelCheckpoint(monitor='val_score', mode='min') is sparse cannot be seen" in found


@pytest.mark.parametrize(
    ("monitor", "meant"), [("val_scor", "did you mean 'val_score'"), ("val/accuracy", "logs val_loss")]
)
def test_G23_a_metric_of_validation_that_is_not_there_is_an_error_before_training(
    make_trainer: MakeTrainer, tmp_path: Path, monitor: str, meant: str
) -> None:
    model = Told(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer([PruningCallback(OneShot(0.5, 20)), SparseModelCheckpoint(tmp_path, monitor=monitor)])
    with pytest.raises(MisconfigurationException, match=meant) as error:
        trainer.fit(model)
    assert "training logs val_loss, val_score" in str(error.value)
    assert trainer.global_step == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(tmp_path.glob("*.ckpt")) == []


@pytest.mark.parametrize("monitor", ["epoch_loss", "step_loss"])
def test_a_metric_of_training_is_waited_for(make_trainer: MakeTrainer, tmp_path: Path, monitor: str) -> None:
    ours = SparseModelCheckpoint(tmp_path, monitor=monitor)
    make_trainer([PruningCallback(OneShot(0.5, 20)), ours]).fit(Told(1))
    assert ours.best_model_path


def test_what_is_logged_in_later_validations_alone_has_a_way_out(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    model = Told(1, only_later=True)
    with pytest.raises(MisconfigurationException, match=r"num_sanity_val_steps=0"):
        make_trainer([PruningCallback(OneShot(0.5, 20)), SparseModelCheckpoint(tmp_path, monitor="val_score")]).fit(
            model
        )
    ours = SparseModelCheckpoint(tmp_path, monitor="val_score")
    make_trainer([PruningCallback(OneShot(0.5, 20)), ours], num_sanity_val_steps=0).fit(Told(1, only_later=True))
    assert ours.best_model_path


def test_a_metric_of_another_name_is_an_error_after_the_first_epoch(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer([PruningCallback(OneShot(0.5, 20)), SparseModelCheckpoint(tmp_path, monitor="quality")])
    with pytest.raises(MisconfigurationException, match=r"'val_loss'.*'step_loss'.*'epoch_loss'|epoch_loss"):
        trainer.fit(Told(1))
    assert trainer.current_epoch == 0
