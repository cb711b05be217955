"""A real offline wandb run, read back from disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from torch import Tensor

from lightning_prune import Pruner, PruningCallback
from lightning_prune.regularizer import L1
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.callbacks.logging.conftest import Classifier, MakeTrainer
from tests.callbacks.logging.wandb_file import WandbRun, read

wandb = pytest.importorskip("wandb")
Image = pytest.importorskip("PIL.Image")

NAMES = ["net.0.weight", "net.2.weight", "net.4.weight"]
UPDATES = [*range(4, 29, 2), 29]


def zeros(weights: dict[str, Tensor]) -> int:
    return sum(int((weights[name] == 0).sum()) for name in NAMES)


@dataclass
class Spy:
    """Notes what the weights themselves say after every batch with an update."""

    model: Classifier
    pruner: Pruner
    seen: dict[int, dict[str, float]] = field(default_factory=dict)

    def look(self) -> None:
        step = self.model.global_step
        if self.pruner.last_update == step and step not in self.seen and list(self.pruner.masks) == NAMES:
            weights = {name: self.model.get_parameter(name).detach() for name in NAMES}
            size = sum(w.numel() for w in weights.values())
            self.seen[step] = {
                "sparsity": zeros(weights) / size,
                "target_sparsity": self.pruner.resolved_schedule.sparsity(step),
                "changed": self.pruner.changed,
                "regularizer": self.pruner.penalty,
                **{f"sparsity/{name}": int((w == 0).sum()) / w.numel() for name, w in weights.items()},
                **{f"threshold/{name}": float(self.pruner.masks[name].threshold) for name in NAMES},
            }


@dataclass
class Fitted:
    """A run that is over."""

    run: WandbRun
    spy: Spy
    callback: PruningCallback
    model: Classifier
    folder: Path


def fit(make_trainer: MakeTrainer, folder: Path, callbacks: Sequence[PruningCallback], **options: Any) -> Fitted:
    folder.mkdir()
    model = Classifier()
    spy = Spy(model, callbacks[0].pruner)
    model.after_batch = spy.look
    loggers = [WandbLogger(project="test", save_dir=folder, **options), CSVLogger(folder, name="csv", version="")]
    trainer = make_trainer(callbacks, logger=loggers)
    trainer.fit(model)
    trainer.save_checkpoint(folder / "final.ckpt")
    wandb.finish()
    return Fitted(read(folder), spy, callbacks[0], model, folder)


@pytest.fixture(scope="module")
def fitted(make_trainer: MakeTrainer, wandb_folder: Path) -> Fitted:
    pruner = Pruner(Polynomial(0.9, 4, 29, 2), regularizer=L1(1e-3))
    return fit(make_trainer, wandb_folder / "plain", [PruningCallback(pruner)])


def test_the_logged_numbers_are_those_of_the_weights(fitted: Fitted) -> None:
    """G19: at every update: sparsity, target, share changed, regularizer; sparsity and threshold of every weight."""
    assert sorted(fitted.spy.seen) == UPDATES
    for name in fitted.spy.seen[29]:
        logged = {step: value for step, value in fitted.run.series(f"pruning/{name}") if step in fitted.spy.seen}
        # wandb writes 16 digits where a float64 needs 17.
        assert logged == pytest.approx({step: seen[name] for step, seen in fitted.spy.seen.items()}, rel=1e-15), name


def test_the_regularizer_is_logged_between_updates_too(fitted: Fitted) -> None:
    """At the trainer's `log_every_n_steps`, with the value that it had."""
    steps = [step for step, _ in fitted.run.series("pruning/regularizer")]
    assert steps == list(range(1, 41))


def test_the_last_sparsity_is_that_of_the_saved_files(fitted: Fitted) -> None:
    """G19: log, report, summary, checkpoint, artifact and a fresh count of the model agree."""
    report = fitted.callback.report
    assert report is not None
    (name,) = [name for name in fitted.run.artifacts if name.startswith("pruned-")]
    artifact = torch.load(fitted.run.artifacts[name]["model.pt"], weights_only=True)
    checkpoint = torch.load(fitted.folder / "final.ckpt", weights_only=True)["state_dict"]
    size = sum(fitted.model.get_parameter(name).numel() for name in NAMES)
    counted = zeros(artifact) / size
    assert counted == zeros(checkpoint) / size == zeros(fitted.model.state_dict()) / size == report.sparsity
    assert fitted.run.series("pruning/sparsity")[-1][1] == counted
    assert fitted.run.summary["pruning/sparsity"] == counted
    assert fitted.run.summary["pruning/final/sparsity"] == counted
    assert fitted.run.metadata[name]["sparsity"] == counted
    assert round(counted * size) == round(0.9 * size)
    Classifier().load_state_dict(artifact)


def test_the_summary_is_filled(fitted: Fitted) -> None:
    """G19: the report's scalars under `final/`, and the counts."""
    report, summary = fitted.callback.report, fitted.run.summary
    assert report is not None
    for name, value in report.scalars().items():
        assert summary[f"pruning/final/{name}"] == value
    assert summary["pruning/zeros"] == report.zeros
    assert summary["pruning/prunable"] == report.size
    assert summary["pruning/parameters"] == report.parameters


def test_the_table_by_layer(fitted: Fitted) -> None:
    """G19: one row a weight."""
    (file,) = fitted.run.media("pruning/layers")
    table = json.loads(file.read_text(encoding="utf-8"))
    assert table["columns"] == ["weight", "shape", "weights", "zeros", "sparsity", "threshold"]
    assert [row[0] for row in table["data"]] == NAMES
    for row in table["data"]:
        weight = fitted.model.get_parameter(row[0])
        assert row[2:4] == [weight.numel(), int((weight == 0).sum())]


def test_the_pictures_can_be_read(fitted: Fitted) -> None:
    """PNGs with something drawn on them, ten at most, the last at the final sparsity."""
    files = fitted.run.media("pruning/histograms")
    assert 5 <= len(files) <= 10
    for file in files:
        with Image.open(file) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 500
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
    steps = [row["trainer/global_step"] for row in fitted.run.history if "pruning/histograms/path" in row]
    assert steps[-1] == 29
    assert set(steps) <= set(UPDATES)


def test_other_loggers_get_the_same_numbers(fitted: Fitted) -> None:
    """Several loggers at once: the CSV file holds what wandb holds."""
    lines = (fitted.folder / "csv" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    sparsity = [(int(row["step"]), float(row["pruning/sparsity"])) for row in rows if row["pruning/sparsity"]]
    assert sparsity == fitted.run.series("pruning/sparsity")


def test_two_callbacks_and_a_prefix(make_trainer: MakeTrainer, wandb_folder: Path) -> None:
    """G27: names carry the tag, media and artifacts too; the logger's own prefix stands before all that is logged."""
    first = PruningCallback(Pruner(OneShot(0.5, 3), targets=Targets(include=("net.0.weight",))), tag="in")
    second = PruningCallback(Pruner(OneShot(0.8, 5), targets=Targets(include=("net.2.weight",))), tag="mid dle")
    fitted = fit(make_trainer, wandb_folder / "two", [first, second], prefix="mine")
    assert fitted.run.series("mine-pruning/in/sparsity") == [(3, 0.5)]
    assert fitted.run.series("mine-pruning/mid dle/sparsity") == [(5, 0.8)]
    assert len(fitted.run.media("mine-pruning/in/histograms")) == 1
    assert len(fitted.run.media("mine-pruning/mid dle/layers")) == 1
    models = {name.rsplit("-", 1)[0] for name in fitted.run.artifacts if name.startswith("pruned-")}
    assert models == {"pruned-in", "pruned-mid-dle"}


def test_switched_off(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WANDB_MODE=disabled is no reason to fail."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    callback = PruningCallback(OneShot(0.5, 3))
    make_trainer([callback], logger=WandbLogger(save_dir=tmp_path)).fit(Classifier())
    assert callback.report is not None
    wandb.finish()
