"""G10, G12, G28: the model stays plain, a run without pruning stays as it was, and a checkpoint is an ordinary one."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import Rewind
from lightning_prune.criterion import Random
from lightning_prune.regularizer import L1
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Batches, Net, bits, differences, fit, momentum, ramp, trainer, zeros

pytestmark = pytest.mark.filterwarnings("ignore:.*callbacks used to create:UserWarning")


def layout(model: nn.Module) -> list[Any]:
    """Everything a checkpoint, DDP or an optimizer sees of a model's structure, in order."""
    state = [(k, tuple(v.shape), v.dtype) for k, v in model.state_dict().items()]
    named = [(n, tuple(p.shape), p.dtype, p.requires_grad) for n, p in model.named_parameters()]
    return [state, named, [n for n, _ in model.named_buffers()], [n for n, _ in model.named_modules()]]


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


# G12


class Noisy(Net):
    """Draws from every global generator in each step, and logs what it drew."""

    def __init__(self) -> None:
        super().__init__(momentum, net=nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4)))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y) + 0 * torch.rand(())
        self.log("drawn", float(np.random.rand()) + random.random())
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))


def _logged(folder: Path, *callbacks: pl.Callback, **options: Any) -> tuple[Any, Any, Any]:
    pl.seed_everything(11, verbose=False)
    model = Noisy()
    data = TensorDataset(torch.randn(40, 12), torch.randint(4, (40,)))
    loaders = DataLoader(data, 8, shuffle=True), DataLoader(data, 8)
    logger = CSVLogger(folder, "", "")
    settings: dict[str, Any] = {"max_epochs": 3, "log_every_n_steps": 1, "num_sanity_val_steps": 2} | options
    run = trainer(callbacks=list(callbacks), logger=logger, **settings)
    run.fit(model, *loaders)
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if v and not k.startswith("pruning/")} for row in csv.DictReader(file)]
    rows = sorted((row for row in rows if set(row) - {"step", "epoch"}), key=str)
    keys = np.random.get_state(legacy=False)["state"]["key"].tolist()
    generators = [torch.get_rng_state(), keys, random.getstate()]
    state = [bits(model), run.optimizers[0].state_dict()["state"]]
    return state, rows, generators


DENSE = {
    "number": lambda: PruningCallback(0.0),
    "schedule": lambda: PruningCallback(Polynomial(0.0, 2, 9, 2)),
    "random": lambda: PruningCallback(Pruner(Polynomial(0.0, 2, 9, 2), Random())),
    "reversible": lambda: PruningCallback(Pruner(Polynomial(0.0, 2, 9, 2), reversible=True)),
}


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", DENSE)
def test_G12_zero_sparsity_is_bitwise_the_run_without_the_callback(name: str, accumulate: int, tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}
    without = _logged(tmp_path / "without", **options)
    with_callback = _logged(tmp_path / "with", DENSE[name](), **options)
    assert differences(without[0], with_callback[0]) == []
    assert without[1] == with_callback[1]
    assert len(without[1]) > 10
    assert differences(without[2], with_callback[2]) == []


@pytest.mark.parametrize(
    "make",
    [lambda: PruningCallback(0.8), lambda: PruningCallback(Pruner(Polynomial(0.8, 2, 9, 2), Random()))],
    ids=["magnitude", "random"],
)
def test_G12_pruning_itself_draws_from_no_global_generator(make: Any, tmp_path: Path) -> None:
    without = _logged(tmp_path / "without")
    pruned = _logged(tmp_path / "with", make())
    assert differences(without[0], pruned[0]) != []
    assert differences(without[2], pruned[2]) == []


def test_G12_drawing_weights_anew_moves_no_global_generator(tmp_path: Path) -> None:
    without = _logged(tmp_path / "without")
    rewound = _logged(tmp_path / "with", PruningCallback(Polynomial(0.8, 2, 9, 2), rewind=Rewind("init")))
    assert differences(without[2], rewound[2]) == []


# G28


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


@pytest.mark.parametrize("version", [2, 99, None, "1"])
def test_G28_a_state_of_a_newer_version_is_refused(version: Any, tmp_path: Path) -> None:
    file = tmp_path / "step=7.ckpt"
    callback = ramp()
    with pytest.warns(UserWarning, match="end_step=13 is past the end"), pytest.warns(UserWarning, match="less than"):
        fit(Net(), callback, ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7), max_steps=7)
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["callbacks"][callback.state_key]["version"] = version
    torch.save(checkpoint, file)
    model, callback = Net(), ramp()
    with pytest.raises(ValueError, match=f"version {version!r}.*up to 1"):
        fit(model, callback, max_steps=20, ckpt=file)
    assert not callback.pruner.attached


def test_G28_a_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    fit(Net(), ramp(), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7), max_steps=14)
    other = PruningCallback(Pruner(Polynomial(0.8, 3, 13, 3)))
    other.pruner.targets = type(other.pruner.targets)(exclude=("net.3",))
    with pytest.raises(ValueError, match=r"other weights.*net\.3\.weight"):
        fit(Net(), other, max_steps=20, ckpt=tmp_path / "step=14.ckpt")
    assert not other.pruner.attached
