"""What other pruning libraries get wrong after a fit and in several fits, by the list at the end of the guarantees."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.criterion import FirstOrderDelta, Random
from lightning_prune.schedule import OneShot, Polynomial
from tests.guarantees.helpers import (
    Batches,
    Net,
    assert_plain,
    bits,
    differences,
    fit,
    ramp,
    sparsity,
    trainer,
    zeros,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*callbacks used to create:UserWarning")


def pruned_where(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach() == 0 for n, p in model.named_parameters() if p.dim() > 1}


# After the fit


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluation_after_fit_changes_no_weight(verb: str) -> None:
    class Predicts(Net):
        def predict_step(self, batch: Tensor, batch_idx: int) -> Any:
            return self.loss(batch_idx)

    model = Predicts()
    run = fit(model, ramp(), max_steps=20, val=1)
    before = bits(model)
    getattr(run, verb)(model, Batches(2))
    assert differences(before, bits(model)) == []
    assert_plain(model)


def test_evaluation_of_a_checkpoint_leaves_nothing_behind_for_the_next_fit(tmp_path: Path) -> None:
    callback = ramp(criterion=Random())
    run = fit(Net(), callback, ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=10), max_steps=20)
    file = str(next(tmp_path.glob("*.ckpt")))
    run.test(Net(), Batches(2), ckpt_path=file, verbose=False)
    run.validate(Net(), Batches(2), ckpt_path=file, verbose=False)
    again, twin = Net(seed=4), Net(seed=4)
    fit(again, callback, max_steps=20)
    fit(twin, ramp(criterion=Random()), max_steps=20)
    assert differences(bits(twin), bits(again)) == []


def test_the_sanity_check_has_no_side_effects() -> None:
    checked, twin = Net(), Net()
    fit(checked, ramp(), max_steps=20, val=2, num_sanity_val_steps=2)
    fit(twin, ramp(), max_steps=20, val=2)
    assert differences(bits(twin), bits(checked)) == []


def test_a_copy_made_after_a_forward_and_after_the_fit_is_plain() -> None:
    model = Net()
    fit(model, ramp(), max_steps=20)
    model.loss(0).backward()
    other = copy.deepcopy(model)
    assert_plain(other)
    assert zeros(other) == zeros(model)
    assert torch.equal(other.loss(1), model.loss(1))


def test_the_callback_may_come_from_the_module() -> None:
    class Own(Net):
        def configure_callbacks(self) -> list[pl.Callback]:
            return [ramp()]

    model = Own()
    fit(model, max_steps=20)
    assert sparsity(model) == 205 / 256


# Several fits


def test_an_amount_does_not_compound_with_the_epochs() -> None:
    model = Net()
    seen: list[float] = []
    model.after_batch.append(lambda _: seen.append(sparsity(model)))
    fit(model, PruningCallback(OneShot(0.5, 3)), max_epochs=6)
    assert seen == [0.0] * 2 + [0.5] * 34


@pytest.mark.parametrize("criterion", [None, Random(), FirstOrderDelta(0.5)], ids=["magnitude", "random", "delta"])
def test_one_callback_in_two_fits_of_two_models(criterion: Any) -> None:
    callback = ramp(criterion=criterion) if criterion else ramp()
    twin_callback = ramp(criterion=criterion) if criterion else ramp()
    first, second, twin = Net(), Net(seed=9), Net(seed=9)
    fit(first, callback, max_steps=20)
    kept = bits(first)
    fit(second, callback, max_steps=20)
    fit(twin, twin_callback, max_steps=20)
    assert differences(bits(twin), bits(second)) == []
    assert differences(kept, bits(first)) == []
    assert callback.report == twin_callback.report


def test_one_callback_in_two_fits_of_the_same_model() -> None:
    callback, model = ramp(), Net()
    fit(model, callback, max_steps=20)
    fit(model, callback, max_steps=20)
    assert sparsity(model) == 205 / 256
    assert_plain(model, callback=callback)


CONTINUED: dict[str, Any] = {
    "magnitude": lambda: ramp(),
    "random": lambda: ramp(criterion=Random()),
    "delta": lambda: ramp(criterion=FirstOrderDelta(0.5)),
    "shares": lambda: PruningCallback(Polynomial(0.8, 0.1, 0.9, 0.1)),
}


@pytest.mark.parametrize("name", CONTINUED)
def test_a_trainer_that_goes_on_keeps_the_zeros_it_made(name: str) -> None:
    model, callback = Net(), CONTINUED[name]()
    run = trainer(callbacks=[callback], max_epochs=3, limit_val_batches=0)
    run.fit(model, Batches(6), Batches(1))
    reached = pruned_where(model)
    assert sparsity(model) == 205 / 256
    kept: list[bool] = []
    model.after_batch.append(lambda _: kept.append(_same(reached, model)))
    run.fit_loop.max_epochs = 5
    run.fit(model, Batches(6), Batches(1))
    assert run.global_step == 30
    assert kept == [True] * 12
    assert _same(reached, model)


def _same(reached: dict[str, Tensor], model: nn.Module) -> bool:
    return differences(reached, pruned_where(model)) == []


def test_a_trainer_that_goes_on_in_the_middle_of_the_window_ends_like_an_uninterrupted_one() -> None:
    whole, parts = Net(), Net()
    fit(whole, ramp(criterion=Random()), max_epochs=4)
    run = trainer(callbacks=[ramp(criterion=Random())], max_epochs=1, limit_val_batches=0)
    with pytest.warns(UserWarning, match="past the end"), pytest.warns(UserWarning, match="less than"):
        run.fit(parts, Batches(6), Batches(1))
    run.fit_loop.max_epochs = 4
    run.fit(parts, Batches(6), Batches(1))
    assert run.global_step == 24
    assert differences(pruned_where(whole), pruned_where(parts)) == []


def test_a_trainer_that_goes_on_with_another_model_prunes_that_one() -> None:
    callback, first, second = ramp(), Net(), Net(seed=2)
    run = trainer(callbacks=[callback], max_epochs=3, limit_val_batches=0)
    run.fit(first, Batches(6), Batches(1))
    run.fit_loop.max_epochs = 5
    run.fit(second, Batches(6), Batches(1))
    assert sparsity(second) == 205 / 256


def test_a_resume_that_broke_off_before_it_began_leaves_nothing_for_the_next_fit(tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            raise RuntimeError("on purpose")

    fit(Net(), ramp(criterion=Random()), max_steps=20).save_checkpoint(tmp_path / "end.ckpt")
    callback, model = ramp(), Net(seed=4)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(Net(), Fails(), callback, max_steps=30, ckpt=tmp_path / "end.ckpt")
    fit(model, callback, max_steps=20)
    assert sparsity(model) == 205 / 256
