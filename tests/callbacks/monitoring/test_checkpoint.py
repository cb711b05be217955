"""G23: a checkpoint's metric and its weights come from the same, final masks."""

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import SparseModelCheckpoint
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.callbacks.monitoring.conftest import SIZE, MakeTrainer, Regression, zeros

FINAL = round(0.75 * SIZE)
BEGIN, END = 16, 44  # the last update falls into the middle of the sixth epoch


def pruning(final: float = 0.75) -> PruningCallback:
    return PruningCallback(Polynomial(final, BEGIN, END, 4))


def step_of(file: str | Path) -> int:
    return torch.load(file, weights_only=True)["global_step"]


def test_the_best_model_is_a_sparse_one(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G23: where the dense model scores best, Lightning's own class takes it, ours the best of the sparse ones."""
    plain = ModelCheckpoint(tmp_path / "plain", monitor="val_loss")
    ours = SparseModelCheckpoint(tmp_path / "ours", monitor="val_loss")
    with pytest.warns(UserWarning, match="asked for: it is from before the last update"):
        make_trainer([pruning(), plain, ours]).fit(Regression())
    assert zeros(plain.best_model_path) == 0
    assert zeros(ours.best_model_path) == FINAL
    assert plain.best_model_score is not None
    assert ours.best_model_score is not None
    assert plain.best_model_score < ours.best_model_score


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}, {"check_val_every_n_epoch": 2}], ids=str)
def test_validating_the_saved_file_gives_the_stored_score(
    make_trainer: MakeTrainer, tmp_path: Path, options: dict[str, Any]
) -> None:
    """G23: metric and weights come from the same mask, so the file scores what it is stored with."""
    ours = SparseModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1)
    make_trainer([pruning(), ours], **options).fit(Regression())
    assert len(ours.best_k_models) >= 2
    for file, score in ours.best_k_models.items():
        model = Regression()
        model.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
        assert zeros(file) == FINAL
        assert make_trainer([]).validate(model, verbose=False)[0]["val_loss"] == score


TRIGGERS: dict[str, dict[str, Any]] = {
    "every epoch": {},
    "every second epoch": {"every_n_epochs": 2},
    "every third step": {"every_n_train_steps": 3},
    "by the clock": {"train_time_interval": timedelta(0)},
    "at the end of training epochs": {"save_on_train_epoch_end": True},
    "after validation": {"save_on_train_epoch_end": False},
    "the last one too": {"save_last": True, "every_n_train_steps": 5},
    "a link to the last one": {"save_last": "link"},
    "without a metric": {"monitor": None},
    "by the step's loss": {"monitor": "step_loss", "every_n_train_steps": 1},
    "by the epoch's loss": {"monitor": "epoch_loss"},
    "by sparsity": {"monitor": "sparsity", "mode": "max"},
}


@pytest.mark.parametrize(
    ("validation", "options"),
    [
        pytest.param(validation, options, id=f"{name}, {validation}")
        for validation in ({}, {"check_val_every_n_epoch": 2}, {"limit_val_batches": 0})
        for name, options in TRIGGERS.items()
        if not ("limit_val_batches" in validation and name == "after validation")  # there is none
    ],
)
def test_every_file_has_the_final_sparsity(
    make_trainer: MakeTrainer, tmp_path: Path, validation: dict[str, Any], options: dict[str, Any]
) -> None:
    """G23: whatever triggers the save."""
    options = {"monitor": "epoch_loss" if "limit_val_batches" in validation else "val_loss", **options}
    ours = SparseModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **options)
    make_trainer([pruning(), ours], **validation).fit(Regression())
    files = list(tmp_path.glob("*.ckpt"))
    assert files
    assert {zeros(file) for file in files} == {FINAL}


@pytest.mark.parametrize(
    ("monitor", "first"),
    [
        ("val_loss", 48),  # the validation at the end of the epoch, not the one before the last update
        ("step_loss", 49),  # the first step of an epoch that began at the final sparsity
        ("epoch_loss", 57),  # its mean is known after the epoch
    ],
)
def test_a_metric_from_before_the_last_update_does_not_count(
    make_trainer: MakeTrainer, tmp_path: Path, monitor: str, first: int
) -> None:
    """G23: at step 44 the masks are final, but every metric there is one of other masks."""
    ours = SparseModelCheckpoint(tmp_path, "{step}", monitor=monitor, save_top_k=-1, every_n_train_steps=1)
    make_trainer([pruning(), ours]).fit(Regression())
    assert min(map(step_of, tmp_path.glob("*.ckpt"))) == first


@pytest.mark.parametrize("validation", [{}, {"val_check_interval": 4}], ids=str)
def test_a_save_that_is_due_just_before_validation(
    make_trainer: MakeTrainer, tmp_path: Path, validation: dict[str, Any]
) -> None:
    """G23: Lightning's own class saves after the validation then, with its metric; so does ours, the first time too."""
    ours = SparseModelCheckpoint(tmp_path, "{step}", monitor="val_loss", save_top_k=-1, every_n_train_steps=4)
    make_trainer([pruning(), ours], max_epochs=7, **validation).fit(Regression())
    assert sorted(map(step_of, tmp_path.glob("*.ckpt"))) == ([44, 48, 52, 56] if validation else [48, 52, 56])


def test_pruned_before_the_first_step(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G23: a one-shot pruning at step 0 holds nothing back; Lightning's sanity check is no validation."""
    ours = SparseModelCheckpoint(tmp_path, "{step}", monitor="val_loss", save_top_k=-1)
    make_trainer([PruningCallback(OneShot(0.75, 0)), ours], max_epochs=2).fit(Regression())
    assert sorted(map(step_of, tmp_path.glob("*.ckpt"))) == [8, 16]


class TwoLayers(Regression):
    def __init__(self) -> None:
        super().__init__()
        self.more = torch.nn.Linear(8, 8)


def test_waits_for_every_callback(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G23, G27: the slower of two callbacks decides."""
    early = PruningCallback(Pruner(OneShot(0.5, 8), targets=Targets(include=("more.weight",))), tag="early")
    late = PruningCallback(Pruner(OneShot(0.75, 30), targets=Targets(include=("net.weight",))), tag="late")
    ours = SparseModelCheckpoint(tmp_path, "{step}", monitor="val_loss", save_top_k=-1)
    make_trainer([early, late, ours], max_epochs=6).fit(TwoLayers())
    assert sorted(map(step_of, tmp_path.glob("*.ckpt"))) == [32, 40, 48]


def test_without_pruning_it_is_an_error(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G13: it would wait for ever."""
    with pytest.raises(
        ValueError, match="SparseModelCheckpoint waits for the final sparsity of a PruningCallback, but"
    ):
        make_trainer([SparseModelCheckpoint(tmp_path, monitor="val_loss")]).fit(Regression())


def test_a_metric_that_nobody_logs_is_reported_at_once(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G13: not only when the final sparsity is there."""
    trainer = make_trainer([pruning(), SparseModelCheckpoint(tmp_path, monitor="val_los")])
    with pytest.raises(MisconfigurationException, match="could not find the monitored key"):
        trainer.fit(Regression())
    assert trainer.current_epoch == 0


@pytest.mark.parametrize(
    ("callback", "epochs", "reason"),
    [
        (PruningCallback(Polynomial(0.75, 4, 24, 4)), 2, "the run did not get there"),
        (PruningCallback(OneShot(0.75, 22)), 3, "'epoch_loss' was not measured any more"),
    ],
)
def test_nothing_saved_is_said(
    make_trainer: MakeTrainer, tmp_path: Path, callback: PruningCallback, epochs: int, reason: str
) -> None:
    """G13: a run that ends before there is anything to choose from says so, and still keeps its last model."""
    ours = SparseModelCheckpoint(tmp_path, monitor="epoch_loss", save_last=True)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        make_trainer([callback, ours], max_epochs=epochs).fit(Regression())
    assert f"SparseModelCheckpoint saved no model at the final sparsity: {reason}" in [str(w.message) for w in warned]
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["last.ckpt"]
    assert ours.best_model_path == ""


class Failing(Regression):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_step == 20:
            raise KeyError("broken")


def test_the_rescue_copy_of_a_failed_run_is_not_held_back(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G11, G23: `save_on_exception` saves for resuming, and what it saves is no candidate for the best."""
    ours = SparseModelCheckpoint(tmp_path, "{step}", monitor="val_loss", save_on_exception=True)
    with pytest.raises(KeyError, match="broken"):
        make_trainer([pruning(), ours]).fit(Failing())
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["step=20.ckpt"]
    assert ours.best_model_path == ""
    make_trainer([pruning(), ours]).fit(Regression(), ckpt_path=tmp_path / "step=20.ckpt")
    assert zeros(ours.best_model_path) == FINAL


def saved(checkpoint: ModelCheckpoint) -> dict[str, float]:
    return {Path(file).name: float(score) for file, score in checkpoint.best_k_models.items()}


def every_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("stop", [24, 43, 44, 46, 50, 60])
def test_resumed(make_trainer: MakeTrainer, tmp_path: Path, stop: int) -> None:
    """G2, G23: broken off before, at and after the last update, a run keeps the same models with the same scores."""

    def run(**options: Any) -> SparseModelCheckpoint:
        ours = SparseModelCheckpoint(
            tmp_path / "ours", "{step}", monitor="val_loss", save_top_k=-1, enable_version_counter=False
        )
        make_trainer([pruning(), ours, every_step(tmp_path / "all")]).fit(Regression(), **options)
        return ours

    whole = run()
    resumed = run(ckpt_path=tmp_path / "all" / f"step={stop}.ckpt")
    assert len(whole.best_k_models) == 5
    assert resumed.best_k_models == whole.best_k_models
    assert resumed.best_model_score == whole.best_model_score
    assert resumed.best_model_path == whole.best_model_path
    assert {zeros(file) for file in resumed.best_k_models} == {FINAL}


def test_scores_of_a_lower_sparsity_are_forgotten(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G23: a run that goes on to prune further does not compare with the models of the sparsity before."""
    first = SparseModelCheckpoint(tmp_path / "same", "first-{step}", monitor="val_loss")
    make_trainer([pruning(0.5), first], max_epochs=7).fit(Regression())
    assert zeros(first.best_model_path) == SIZE // 2

    second = SparseModelCheckpoint(tmp_path / "same", "second-{step}", monitor="val_loss")
    further = PruningCallback(Polynomial(0.75, BEGIN, 68, 4))
    make_trainer([further, second], max_epochs=12).fit(Regression(), ckpt_path=first.best_model_path)
    assert zeros(second.best_model_path) == FINAL
    assert list(second.best_k_models) == [second.best_model_path]
