"""`pytorch_lightning` and `lightning.pytorch` in one process: either Trainer prunes alike, with its own callbacks."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import LearnedMasks, Pruner, PruningCallback, PruningRounds, families
from lightning_prune.callbacks import SparseEarlyStopping, SparseModelCheckpoint
from lightning_prune.callbacks.run_length import run_length
from lightning_prune.gate import HardConcrete
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from lightning_prune.tasks.data.digits import Digits

from .conftest import BATCHES, FAMILIES, SIZE, Family, zeros

FINAL = round(0.9 * SIZE)


def ramp() -> PruningCallback:
    return PruningCallback(Polynomial(0.9, 5, 25, 5))


def test_the_classes_are_of_both(family: Family) -> None:
    callbacks = family.pl.callbacks
    assert isinstance(ramp(), callbacks.Callback)
    assert isinstance(SparseModelCheckpoint(), callbacks.ModelCheckpoint)
    assert isinstance(SparseEarlyStopping("val_loss", patience=7), callbacks.EarlyStopping)
    assert isinstance(Digits(), family.pl.LightningDataModule)
    made = [ramp(), SparseModelCheckpoint(monitor="m", mode="max"), SparseEarlyStopping("val_loss", patience=7)]
    for callback in made:
        again: Any = pickle.loads(pickle.dumps(callback))
        assert type(again) is type(callback)
        assert again.state_key == callback.state_key == copy.deepcopy(callback).state_key
    assert (made[1].mode, made[1].save_top_k, made[2].patience) == ("max", 1, 7)  # pyright: ignore


def test_families_are_told_apart(family: Family, other: Family) -> None:
    assert families.of(family.net()) is families.of(family.trainer()) is family.pl
    assert {*families.loaded()} == {*FAMILIES.values()}
    assert isinstance(family.pl.callbacks.Timer(), families.every("callbacks.Timer"))
    assert families.every("callbacks.Timer", "callbacks.NoSuchClass") == families.every("callbacks.Timer")
    with pytest.raises(TypeError, match="int is of no class of Lightning's"):
        families.of(1)


@pytest.mark.parametrize("accumulated", [{0: 2}, {0: 1, 2: 5}], ids=str)
def test_G4_the_length_of_the_run_counts_accumulation(family: Family, accumulated: dict[int, int]) -> None:
    lengths: list[int | None] = []

    class Look(family.pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            lengths.append(run_length(trainer))

    scheduler = family.pl.callbacks.GradientAccumulationScheduler(accumulated)
    trainer, net = family.fit(PruningCallback(0.5), scheduler, Look())
    assert lengths == [trainer.global_step]
    assert zeros(net) == SIZE // 2


def test_G13_a_time_limit_needs_steps(family: Family) -> None:
    with pytest.raises(ValueError, match="max_time"):
        family.fit(PruningCallback(0.9), max_time={"hours": 1})
    assert zeros(family.fit(ramp(), max_time={"hours": 1})[1]) == FINAL


@pytest.mark.parametrize("average", ["StochasticWeightAveraging", "EMAWeightAveraging"])
def test_G6_averages_keep_the_zeros(family: Family, average: str, tmp_path: Path) -> None:
    kind: Any = getattr(family.pl.callbacks, average)
    averaging = kind(swa_lrs=0.01) if average.startswith("S") else kind()
    saving = family.pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    trainer, net = family.fit(ramp(), averaging, saving)
    assert zeros(net) == FINAL
    order = [c for c in trainer.callbacks if c is averaging or isinstance(c, PruningCallback)]
    assert order[0] is averaging
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    assert sum(int((state[f"net.{i}.weight"] == 0).sum()) for i in (0, 3)) == FINAL


def test_G23_the_best_and_the_patience_wait_for_the_final_sparsity(family: Family, tmp_path: Path) -> None:
    best = SparseModelCheckpoint(tmp_path, monitor="val_loss")
    stop = SparseEarlyStopping("val_loss", patience=1, min_delta=9.0)
    trainer, net = family.fit(ramp(), best, stop, max_epochs=9)
    assert trainer.checkpoint_callback is best
    assert trainer.early_stopping_callback is stop
    assert (trainer.current_epoch, trainer.global_step) == (4, 4 * BATCHES)  # final at 25; looked at after 30 and 40
    net.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    assert zeros(net) == FINAL


def test_G2_a_checkpoint_of_one_is_resumed_by_the_other(family: Family, other: Family, tmp_path: Path) -> None:
    saving = family.pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    _, whole = family.fit(ramp(), saving)
    callback = ramp()
    theirs = other.pl.callbacks.ModelCheckpoint(tmp_path / "resumed")  # its state is in the file, too
    _, resumed = other.fit(callback, theirs, ckpt_path=tmp_path / "epoch=1.ckpt")
    assert zeros(resumed) == FINAL
    for one, two in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_a_shrunk_model_is_saved_beside_the_checkpoints(family: Family, other: Family, tmp_path: Path) -> None:
    callback = PruningCallback(Pruner(Polynomial(0.5, 5, 25, 5), pattern=Channel()), shrink=True)
    _, net = family.fit(callback, family.pl.callbacks.ModelCheckpoint(tmp_path))
    assert net.net[0].weight.shape[0] < 20
    again = other.net()
    small = PruningCallback(Pruner(Polynomial(0.5, 5, 25, 5), pattern=Channel()), shrink=True)
    theirs = other.pl.callbacks.ModelCheckpoint(tmp_path)
    other.trainer(small, theirs).validate(again, ckpt_path=tmp_path / "shrunk.ckpt", verbose=False)
    assert again.net[0].weight.shape == net.net[0].weight.shape


def test_learned_masks(family: Family) -> None:
    callback = PruningCallback(LearnedMasks(gate=HardConcrete(), schedule=Polynomial(0.5, 5, 25, 5)))
    _, net = family.fit(callback)
    assert callback.report is not None
    assert callback.report.zeros == zeros(net) > 0


def test_rounds(family: Family) -> None:
    options = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_progress_bar": False}
    options |= {"enable_checkpointing": False, "enable_model_summary": False, "default_root_dir": family.root}
    net = family.net()
    history = PruningRounds(factor=0.5, maximum_rounds=1).run(net, options)
    assert net.net[0].weight.shape[0] == 10
    assert "val_loss" in history.rounds[-1].metrics


@pytest.mark.parametrize("strategy", ["FSDPStrategy", "ddp_spawn"])
def test_what_cannot_be_done_is_refused(family: Family, strategy: str) -> None:
    from lightning_prune.callbacks.own_processes import own_processes
    from lightning_prune.callbacks.starting import check_strategy

    if strategy == "ddp_spawn":
        made = family.trainer(strategy=strategy, devices=1).strategy
        assert own_processes(made) == "DDPStrategy with start_method='spawn'"
    else:
        with pytest.raises(ValueError, match="FSDPStrategy takes parameters apart"):
            check_strategy(getattr(family.pl.strategies, strategy).__new__(getattr(family.pl.strategies, strategy)))


def test_media_go_to_wandb(family: Family) -> None:
    from lightning_prune.callbacks.wandb_media import Media

    class Logger(family.pl.loggers.WandbLogger):
        def __init__(self) -> None:
            pass

    trainer = family.trainer()
    trainer._loggers = [Logger()]
    assert Media.of(trainer, "pruning/") is not None
    trainer._loggers = [family.pl.loggers.CSVLogger(family.root)]
    assert Media.of(trainer, "pruning/") is None


LATE = """
import sys, warnings
warnings.simplefilter("ignore")
from lightning_prune import PruningCallback
from lightning_prune.callbacks import SparseModelCheckpoint
callbacks = [PruningCallback(0.9), SparseModelCheckpoint()]
first = [name for name in ("pytorch_lightning", "lightning.pytorch") if name in sys.modules]
before = len(sys.meta_path)
import lightning as L
assert isinstance(callbacks[0], L.Callback) and isinstance(callbacks[1], L.pytorch.callbacks.ModelCheckpoint)
trainer = L.Trainer(callbacks=callbacks, accelerator="cpu", logger=False)
assert trainer.checkpoint_callback is callbacks[1]
print(first, before - len(sys.meta_path))
"""


@pytest.mark.slow
def test_callbacks_that_were_made_before_the_other_package_was_imported_are_of_both() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['pytorch_lightning'] 3"  # and nothing waits for an import any more
