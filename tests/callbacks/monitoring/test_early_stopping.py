"""G23: early stopping whose patience begins at the final sparsity."""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_prune import PruningCallback
from lightning_prune.callbacks import SparseEarlyStopping, SparseModelCheckpoint
from lightning_prune.schedule import Polynomial
from tests.callbacks.monitoring.conftest import MakeTrainer, Regression

END = 44  # in the middle of the sixth epoch


def pruning() -> PruningCallback:
    return PruningCallback(Polynomial(0.75, 16, END, 4))


def test_patience_begins_at_the_final_sparsity(make_trainer: MakeTrainer) -> None:
    """G23: Lightning's own class stops while the model is being pruned, ours does not look until it is."""
    plain = make_trainer([pruning(), EarlyStopping("val_loss", patience=2)])
    with pytest.warns(UserWarning, match="the run ended before end_step=44"):
        plain.fit(Regression())
    assert plain.global_step < END

    stopping = SparseEarlyStopping("val_loss", patience=2, min_delta=100.0)
    ours = make_trainer([pruning(), stopping])
    ours.fit(Regression())
    assert ours.global_step == 64  # looks after epochs six, seven and eight: one to compare with, two of patience
    assert stopping.stopped_epoch == 7


def test_thresholds_wait_too(make_trainer: MakeTrainer) -> None:
    """G23: the dense model would pass any of these."""
    reached = SparseEarlyStopping("val_loss", stopping_threshold=100.0)
    trainer = make_trainer([pruning(), reached])
    trainer.fit(Regression())
    assert trainer.global_step == 48


@pytest.mark.parametrize(
    ("monitor", "options", "stop"),
    [
        ("val_loss", {"check_val_every_n_epoch": 2}, 48),
        ("val_loss", {"check_val_every_n_epoch": 4}, 64),
        ("val_loss", {"val_check_interval": 4}, 44),
        ("epoch_loss", {}, 56),
        ("epoch_loss", {"limit_val_batches": 0}, 56),
    ],
    ids=str,
)
def test_looks_at_metrics_of_the_final_masks_alone(
    make_trainer: MakeTrainer, monitor: str, options: dict[str, Any], stop: int
) -> None:
    """G23: the first look is at the first metric that was wholly measured at the final sparsity."""
    trainer = make_trainer([pruning(), SparseEarlyStopping(monitor, stopping_threshold=100.0)], **options)
    trainer.fit(Regression())
    assert trainer.global_step == stop


@pytest.mark.parametrize("stop", [24, 44, 50, 60])
def test_resumed(make_trainer: MakeTrainer, tmp_path: Path, stop: int) -> None:
    """G2, G23: a resumed run stops where the whole run stops."""

    def run(**options: Any) -> SparseEarlyStopping:
        stopping = SparseEarlyStopping("val_loss", patience=3, min_delta=100.0)
        every_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer([pruning(), stopping, every_step])
        trainer.fit(Regression(), **options)
        assert trainer.global_step == 72
        return stopping

    whole = run()
    assert run(ckpt_path=tmp_path / f"step={stop}.ckpt").state_dict() == whole.state_dict()


def test_resumed_from_what_our_checkpoint_saved(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G2: saved at the end of an epoch, after validation; a resumed run has no metric yet and must not complain."""

    def run(epochs: int, **options: Any) -> int:
        ours = SparseModelCheckpoint(
            tmp_path, "{step}", monitor="val_loss", save_top_k=-1, enable_version_counter=False
        )
        stopping = SparseEarlyStopping("val_loss", patience=3, min_delta=100.0)
        trainer = make_trainer([pruning(), ours, stopping], max_epochs=epochs)
        trainer.fit(Regression(), **options)
        return trainer.global_step

    assert run(7) == 56
    assert run(10, ckpt_path=tmp_path / "step=56.ckpt") == run(10) == 72


def test_a_second_fit_starts_anew(make_trainer: MakeTrainer) -> None:
    """The same objects, fitted twice: patience and best score of the first run do not count in the second."""
    callbacks = [pruning(), SparseEarlyStopping("val_loss", patience=2, min_delta=100.0)]
    for _ in range(2):
        trainer = make_trainer(callbacks)
        trainer.fit(Regression())
        assert trainer.global_step == 64


def test_without_pruning_it_is_an_error(make_trainer: MakeTrainer) -> None:
    """G13: it would wait for ever."""
    with pytest.raises(ValueError, match="SparseEarlyStopping waits for the final sparsity of a PruningCallback, but"):
        make_trainer([SparseEarlyStopping("val_loss")]).fit(Regression())


def test_a_metric_that_nobody_logs_is_reported_at_once(make_trainer: MakeTrainer) -> None:
    """G13: not only when the final sparsity is there."""
    trainer = make_trainer([pruning(), SparseEarlyStopping("val_los")])
    with pytest.raises(RuntimeError, match="Early stopping conditioned on metric `val_los` which is not available"):
        trainer.fit(Regression())
    assert trainer.global_step == 8
