"""G10: keys, shapes, dtypes and the order of parameters never change; every checkpoint loads into the plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_prune import Pruner, PruningCallback
from lightning_prune.regularizer import L1
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, bits, differences, fit, layout, ramp, zeros

pytestmark = pytest.mark.filterwarnings("ignore:.*callbacks used to create:UserWarning")


@pytest.mark.parametrize(
    "callback",
    [
        lambda: ramp(),
        lambda: ramp(reversible=True, regularizer=L1(0.01)),
        lambda: PruningCallback(Pruner(Polynomial(0.8, 3, 13, 3)), rewind=0),
    ],
    ids=["plain", "reversible", "rewind"],
)
def test_G10_layout_is_that_of_an_unpruned_twin_at_every_step(callback: Any) -> None:
    model, twin = Net(), Net()
    identities = [id(p) for p in model.parameters()]
    seen: list[Any] = []
    model.after_batch.append(lambda _: seen.append(layout(model)))
    model.in_step.append(lambda _: seen.append(layout(model)))
    fit(model, callback(), max_steps=20)
    assert seen == [layout(twin)] * 40
    assert layout(model) == layout(twin)
    assert [id(p) for p in model.parameters()] == identities


def test_G10_a_checkpoint_from_the_middle_and_one_from_the_end_load_strictly(tmp_path: Path) -> None:
    model = Net()
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=10, save_top_k=-1)
    run = fit(model, ramp(), save, max_steps=20)
    run.save_checkpoint(tmp_path / "end.ckpt")
    for file, expected in (("step=10", 1), ("step=20", 205), ("end", 205)):
        plain = Net(seed=7)
        plain.load_state_dict(torch.load(tmp_path / f"{file}.ckpt", weights_only=True)["state_dict"], strict=True)
        assert sum(zeros(plain).values()) >= expected
        loaded = Net.load_from_checkpoint(tmp_path / f"{file}.ckpt", strict=True)
        assert differences(bits(plain), bits(loaded)) == []
    assert differences(bits(plain), bits(model)) == []


def test_G10_a_run_that_prunes_starts_from_a_dense_checkpoint(tmp_path: Path) -> None:
    dense = Net()
    save = ModelCheckpoint(tmp_path, "dense", every_n_train_steps=2)
    fit(dense, save, max_steps=2)
    model = Net(seed=3)
    first: list[Any] = []
    model.in_step.append(lambda _: first.append(bits(model)))
    fit(model, ramp(), max_steps=20, ckpt=tmp_path / "dense.ckpt")
    assert differences(first[0], bits(dense)) == []
    assert len(first) == 18
    assert sum(zeros(model).values()) == 205


def test_G10_a_dense_checkpoint_from_past_the_window_is_pruned_before_the_first_step(tmp_path: Path) -> None:
    fit(Net(), ModelCheckpoint(tmp_path, "dense", every_n_train_steps=15), max_steps=15)
    model = Net(seed=3)
    seen: list[int] = []
    model.in_step.append(lambda _: seen.append(sum(zeros(model).values())))
    fit(model, ramp(), max_steps=20, ckpt=tmp_path / "dense.ckpt")
    assert seen == [205] * 5
