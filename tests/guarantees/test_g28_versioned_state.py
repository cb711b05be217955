"""G28: a checkpoint's state has a version and loads with `weights_only=True`; one that does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Batches, Net, fit, ramp, trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*callbacks used to create:UserWarning")


def test_G28_the_state_is_versioned_and_loads_with_weights_only(tmp_path: Path) -> None:
    callback = PruningCallback(Pruner(Polynomial(0.8, 3, 13, 3)), rewind=2)
    fit(Net(), callback, ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7), max_steps=7 + 7)
    state = torch.load(tmp_path / "step=14.ckpt", weights_only=True)["callbacks"][callback.state_key]
    assert isinstance(state["version"], int)
    assert {"masks", "thresholds", "last_update", "rewind"} <= set(state)
    model = Net()
    run = trainer(callbacks=[callback], max_steps=15, limit_val_batches=0)
    run.fit(model, Batches(6), Batches(1), ckpt_path=str(tmp_path / "step=14.ckpt"), weights_only=True)
    assert run.global_step == 15


@pytest.mark.parametrize("version", [3, 99, None, "1"])
def test_G28_a_state_of_a_newer_version_is_refused(version: Any, tmp_path: Path) -> None:
    file = tmp_path / "step=7.ckpt"
    callback = ramp()
    with pytest.warns(UserWarning, match="end_step=13 is past the end"), pytest.warns(UserWarning, match="less than"):
        fit(Net(), callback, ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7), max_steps=7)
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["callbacks"][callback.state_key]["version"] = version
    torch.save(checkpoint, file)
    model, callback = Net(), ramp()
    with pytest.raises(ValueError, match=f"version {version!r}.*up to 2"):
        fit(model, callback, max_steps=20, ckpt=file)
    assert not callback.pruner.attached


def test_G28_a_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    fit(Net(), ramp(), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7), max_steps=14)
    other = PruningCallback(Pruner(Polynomial(0.8, 3, 13, 3)))
    other.pruner.targets = type(other.pruner.targets)(exclude=("net.3",))
    with pytest.raises(ValueError, match=r"other weights.*net\.3\.weight"):
        fit(Net(), other, max_steps=20, ckpt=tmp_path / "step=14.ckpt")
    assert not other.pruner.attached
