"""Learned masks in files: the model that was validated, averages, a shrunk one, and states that are refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging
from torch import Tensor

from lightning_prune import PruningCallback
from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning.saved_masks import described
from lightning_prune.shrink import load_shrunk
from tests.guarantees.helpers import Units, fit
from tests.learned.helpers import STEERED, WAYS, learned, outputs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("way", WAYS)
def test_G9_G23_every_file_holds_the_model_that_was_validated(way: str, tmp_path: Path) -> None:
    model, callback = Units(), learned(**WAYS[way])
    found: dict[int, Tensor] = {}

    class Look(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert not pl_module.training
            found[trainer.global_step] = outputs(pl_module)

        def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.on_validation_end(trainer, pl_module)

    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, monitor="val_loss", save_last=True)
    fit(model, callback, Look(), saving, max_epochs=4, val=1)
    files = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(files) == 4
    for file in files:
        step = int(file.stem.split("=")[1])
        plain = Units().eval()
        plain.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
        assert torch.allclose(outputs(plain), found[step], atol=1e-6)
    assert torch.allclose(outputs(model.eval()), found[24], atol=1e-6)


def test_G9_shrunk_at_the_end_and_loaded_from_a_checkpoint(tmp_path: Path) -> None:
    model, callback = Units(), PruningCallback(LearnedMasks(lr=0.2), shrink=True)
    trainer = fit(model, callback, max_epochs=4, default_root_dir=tmp_path)
    assert callback.shrink_report is not None
    before, after = callback.shrink_report.parameters
    assert after < before
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = load_shrunk(Units(), tmp_path / "end.ckpt")
    assert torch.equal(outputs(again.eval()), outputs(model.eval()))


def test_G16_averages_of_weights_are_masked_in_files_and_at_the_end(tmp_path: Path) -> None:
    model, callback = Units(), learned(**STEERED)
    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=5)
    fit(model, callback, EMAWeightAveraging(decay=0.5), saving, max_epochs=4)
    assert callback.report is not None
    assert abs(callback.report.sparsity - 0.8) <= callback.report.grain / callback.report.size
    files = list(tmp_path.glob("*.ckpt"))
    assert len(files) >= 4
    for file in files:
        saved = torch.load(file, weights_only=True)
        masks = next(s["masks"] for s in saved["callbacks"].values() if "masks" in s)
        assert described({name: saved["state_dict"][name] != 0 for name in masks}) == masks


def test_G28_a_newer_state_and_one_of_other_units_are_refused() -> None:
    masks = LearnedMasks()
    masks.attach(Units(), 10)
    state = masks.state_dict()
    masks.strip()
    with pytest.raises(ValueError, match="version"):
        LearnedMasks().load_state_dict(state | {"version": 99})
    other = copy.deepcopy(state)
    other["logits"] = {name: value[:-1] for name, value in state["logits"].items()}
    again = LearnedMasks()
    again.load_state_dict(other)
    model = Units()
    with pytest.raises(ValueError, match="of other units"):
        again.attach(model, 10)
    assert not any(m._forward_pre_hooks for m in model.modules())
