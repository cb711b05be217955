"""G6 for whole units: weights, norms and biases of a pruned unit are zero in each step, validation and file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor

from tests.guarantees.averages import averaged, masks_in, off_mask
from tests.guarantees.helpers import Units, assert_plain, bits, differences, fit, momentum, raise_at
from tests.guarantees.spies import Spy, by_step
from tests.guarantees.whole_units import assert_pruned, channels


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("average", ["none", "ema", pytest.param("swa", marks=pytest.mark.slow)])
def test_G6_zeros_in_every_step_validation_and_file(average: str, tmp_path: Path) -> None:
    callback = channels()
    spy = Spy(callback)
    model = Units(spy.watched(momentum))
    seen: list[int] = []
    model.in_validation.append(lambda _: seen.append(spy.alive()))
    model.in_step.append(lambda _: seen.append(spy.alive()))
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    run = fit(model, *averaged(average, "average_first", callback), spy, save, batches=5, val=2, max_epochs=4)
    run.save_checkpoint(tmp_path / "after_fit.ckpt")
    assert set(seen + spy.early + spy.late) == {0}
    files = by_step(tmp_path)
    assert len(files) >= 20
    masks: dict[str, Tensor] = {}
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        masks = masks_in(checkpoint, callback.state_key)
        checkpoint["callbacks"].pop(callback.state_key)
        checkpoint.pop("optimizer_states")
        assert {"net.2.weight", "net.2.bias", "net.6.bias"} <= set(masks)
        assert off_mask(checkpoint, masks) == []
    checkpoint = torch.load(tmp_path / "after_fit.ckpt", weights_only=True)
    checkpoint.pop("optimizer_states")
    assert off_mask(checkpoint, masks) == []
    assert_pruned(model, callback)
    plain = Units(seed=5)
    plain.load_state_dict(checkpoint["state_dict"], strict=True)
    assert differences(bits(plain), bits(model)) == []


@pytest.mark.filterwarnings("ignore:.*fit.ckpt_path:UserWarning")
def test_G6_zeros_in_a_file_written_on_an_exception(tmp_path: Path) -> None:
    model, callback = Units(momentum), channels()
    model.in_step.append(raise_at(14))
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, callback, OnExceptionCheckpoint(tmp_path, "broken"), max_steps=20)
    checkpoint = torch.load(tmp_path / "broken.ckpt", weights_only=True)
    masks = masks_in(checkpoint, callback.state_key)
    assert all(bool((~mask).any()) for mask in masks.values())
    assert off_mask({"state_dict": checkpoint["state_dict"]}, masks) == []
    assert_plain(model, callback=callback)
