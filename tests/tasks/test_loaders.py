"""The order of training samples: a function of seed and epoch, on one process and on two, resumed anywhere."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_prune.tasks.data.loaders import TrainingLoader, evaluation_loader, training_loader
from lightning_prune.tasks.data.order import EpochOrder
from lightning_prune.tasks.data.tensors import Tensors

SAMPLES, BATCH, EPOCHS = 22, 4, 3  # 6 batches an epoch, the last one of 2 samples
Batches = list[list[int]]


def numbers() -> Tensors:
    return Tensors(torch.arange(SAMPLES), torch.arange(SAMPLES) * 10)


def order(seed: int, epoch: int, size: int = SAMPLES) -> list[int]:
    sampler = EpochOrder(size, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(size=st.integers(0, 200), seed=st.integers(0, 2**64), epoch=st.integers(0, 10**6))
def test_an_order_is_a_permutation_and_comes_again(size: int, seed: int, epoch: int) -> None:
    found = order(seed, epoch, size)
    assert sorted(found) == list(range(size))
    assert found == order(seed, epoch, size)


def test_seeds_and_epochs_all_have_orders_of_their_own() -> None:
    orders = {tuple(order(seed, epoch)) for seed in range(8) for epoch in range(8)}
    assert len(orders) == 64


def test_an_order_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    order(0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_is_the_rows_asked_for_and_belongs_together() -> None:
    batches = list(training_loader(numbers(), BATCH, 0, None))
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 4, 4, 4, 2]
    assert torch.cat([inputs for inputs, _ in batches]).tolist() == order(0, 0)
    assert all(torch.equal(inputs * 10, targets) for inputs, targets in batches)


def test_evaluation_goes_through_the_samples_in_their_own_order() -> None:
    inputs = [inputs for inputs, _ in evaluation_loader(numbers(), BATCH)]
    assert torch.cat(inputs).tolist() == list(range(SAMPLES))


@pytest.mark.parametrize(("inputs", "targets"), [(3, 2), (0, 0)])
def test_tensors_need_a_target_for_each_input(inputs: int, targets: int) -> None:
    with pytest.raises(ValueError, match=f"inputs has {inputs} samples, targets has {targets}"):
        Tensors(torch.zeros(inputs), torch.zeros(targets))


class Numbers(LightningDataModule):
    """Samples that are their own index."""

    def train_dataloader(self) -> TrainingLoader:
        return training_loader(numbers(), BATCH, 5, self.trainer)


class Writer(LightningModule):
    """Writes down the samples of every batch."""

    def __init__(self, ask_early: bool, break_at: int | None = None) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.ask_early = ask_early
        self.break_at = break_at
        self.seen: Batches = []

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        if self.trainer.global_step == self.break_at:
            raise InterruptedError
        self.seen.append(batch[0].tolist())
        return self.net(batch[0].float().unsqueeze(1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Asked for here, Lightning makes the loader before it reads a checkpoint's progress.
        if self.ask_early:
            assert self.trainer.estimated_stepping_batches == EPOCHS * 6
        return torch.optim.SGD(self.parameters(), lr=0.0)


def flat(batches: Batches) -> list[int]:
    return [sample for batch in batches for sample in batch]


@pytest.mark.parametrize("ask_early", [False, True])
def test_a_run_resumed_at_any_step_sees_the_rest_and_nothing_else(
    make_trainer: Callable[..., Trainer], tmp_path: Path, ask_early: bool
) -> None:
    def fit(resume: Path | None) -> Batches:
        model = Writer(ask_early)
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(max_epochs=EPOCHS, callbacks=[keep], enable_checkpointing=True)
        trainer.fit(model, datamodule=Numbers(), ckpt_path=resume)
        return model.seen

    whole = fit(None)
    assert flat(whole) == [sample for epoch in range(EPOCHS) for sample in order(5, epoch)]
    for step in range(1, EPOCHS * 6):
        assert fit(tmp_path / f"step={step}.ckpt") == whole[step:], step


@pytest.mark.parametrize("step", [6, 9])
def test_a_run_that_broke_inside_a_step_resumes_with_that_batch(
    make_trainer: Callable[..., Trainer], tmp_path: Path, step: int
) -> None:
    broken, resumed = Writer(True, break_at=step), Writer(True)
    trainer = make_trainer(max_epochs=EPOCHS)
    with pytest.raises(InterruptedError):
        trainer.fit(broken, datamodule=Numbers())
    trainer.save_checkpoint(tmp_path / "broken.ckpt")
    make_trainer(max_epochs=EPOCHS).fit(resumed, datamodule=Numbers(), ckpt_path=tmp_path / "broken.ckpt")
    assert flat(broken.seen + resumed.seen) == [sample for epoch in range(EPOCHS) for sample in order(5, epoch)]


def test_accumulation_does_not_move_the_place_to_resume_at(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def fit(resume: Path | None) -> Batches:
        model = Writer(False)
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        options = {"accumulate_grad_batches": 2, "callbacks": [keep], "enable_checkpointing": True}
        make_trainer(max_epochs=EPOCHS, **options).fit(model, datamodule=Numbers(), ckpt_path=resume)
        return model.seen

    whole = fit(None)
    for step in range(1, EPOCHS * 3):
        assert fit(tmp_path / f"step={step}.ckpt") == whole[2 * step :], step


class Look(Callback):
    """Goes through a training loader of its own in the middle of the second epoch, as a calibration does."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step == 8:
            loader = training_loader(numbers(), BATCH, 5, trainer)
            self.seen = torch.cat([inputs for inputs, _ in loader]).tolist()


def test_a_second_look_at_the_data_is_a_look_at_all_of_it(make_trainer: Callable[..., Trainer]) -> None:
    look = Look()
    make_trainer(max_epochs=EPOCHS, callbacks=[look]).fit(Writer(True), datamodule=Numbers())
    assert look.seen == order(5, 1)


def test_overfitting_sees_the_same_batches_every_epoch(make_trainer: Callable[..., Trainer]) -> None:
    model = Writer(False)
    with pytest.warns(UserWarning, match="You requested to overfit"):
        make_trainer(max_epochs=2, overfit_batches=2).fit(model, datamodule=Numbers())
    assert model.seen == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2


@pytest.mark.slow
def test_two_processes_share_out_every_epoch_and_resume_inside_it(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    whole, resumed = ([read(tmp_path, name, rank) for rank in (0, 1)] for name in ("whole", "resumed"))
    epochs = [[flat(seen[5 * epoch : 5 * epoch + 5]) for seen in whole] for epoch in range(3)]
    for first, second in epochs:
        assert sorted(first + second) == list(range(40))
        assert len(first) == len(second)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert resumed == [seen[7:] for seen in whole]


def read(folder: Path, name: str, rank: int) -> Batches:
    return json.loads((folder / f"{name}.{rank}.json").read_text(encoding="utf-8"))
