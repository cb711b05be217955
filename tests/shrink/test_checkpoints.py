"""Checkpoints of a run that shrinks: of the larger and of the smaller model, each loads where it is asked for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import LearnedMasks, Pruner, PruningCallback, Targets
from lightning_prune.callbacks import SparseModelCheckpoint
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from lightning_prune.shrink import NotEqualError, load_shrunk
from tests.guarantees.averages import ema, swa
from tests.guarantees.helpers import trainer


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 10, 3, padding=1), nn.Linear(10 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.norm(self.first(x)).relu()).relu().flatten(1))


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 4, 12, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.view(-1, 2, 8)).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Linear(16, 12), nn.Linear(12, 12)
        self.again = nn.Linear(12, 12)
        self.again.weight = self.twice.weight
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.twice(self.first(x.flatten(1)).relu()).relu()).relu())


class Task(pl.LightningModule):
    def __init__(self, net: type[nn.Module] = Conv) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = net()
        self.example_input_array = torch.randn(2, 1, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("validation", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def val_dataloader(self) -> DataLoader[Any]:
        return data()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(32, 1, 4, 4, generator=generator), torch.randint(0, 3, (32,), generator=generator)
    return DataLoader(TensorDataset(x, y), 8)


def shrinking(last: int = 6, **options: Any) -> PruningCallback:
    return PruningCallback(Pruner(Polynomial(0.5, 1, last, 1), pattern=Channel(), **options), shrink=True)


def fitted(
    folder: Path, *callbacks: pl.Callback, net: type[nn.Module] = Conv, epochs: int = 2
) -> tuple[pl.Trainer, Task]:
    model = Task(net)
    run = trainer(
        callbacks=[*callbacks],
        max_epochs=epochs,
        default_root_dir=folder,
        enable_checkpointing=True,
        num_sanity_val_steps=0,
    )
    run.fit(model, data())
    return run, model


def shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in state.items()}


def loss(run: pl.Trainer, *model: Task, **options: Any) -> float:
    return run.test(*model, dataloaders=data(), verbose=False, **options)[0]["test"]


@pytest.mark.parametrize("net", [Conv, Heads, Tied])
def test_a_file_of_the_larger_model_loads_into_the_smaller_one(tmp_path: Path, net: type[nn.Module]) -> None:
    files = ModelCheckpoint(tmp_path, save_last=True, monitor="loss", every_n_epochs=2)
    run, model = fitted(tmp_path, files, shrinking(), net=net)
    small = shapes(model.state_dict())
    large = shapes(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert large == shapes(Task(net).state_dict())
    assert small != large
    ends_with = loss(run, model)
    for which in ("best", "last", str(tmp_path / "shrunk.ckpt")):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert loss(run, ckpt_path=which) == pytest.approx(ends_with, rel=1e-5)
        assert shapes(model.state_dict()) == small
    assert not model._load_state_dict_pre_hooks


@pytest.mark.parametrize("net", [Conv, Heads, Tied])
def test_in_a_new_run_the_files_load_into_the_plain_model(tmp_path: Path, net: type[nn.Module]) -> None:
    run, model = fitted(tmp_path, ModelCheckpoint(tmp_path, save_last=True), shrinking(), net=net)
    ends_with = loss(run, model)
    for name, like in (("shrunk", model), ("last", Task(net))):
        plain = Task(net)
        other = trainer(callbacks=[shrinking(), ModelCheckpoint(tmp_path)])
        assert loss(other, plain, ckpt_path=str(tmp_path / f"{name}.ckpt")) == pytest.approx(ends_with, rel=1e-5)
        assert shapes(plain.state_dict()) == shapes(like.state_dict())
    assert torch.equal(
        load_shrunk(Task(net), tmp_path / "shrunk.ckpt").eval()(model.example_input_array),
        model.eval()(model.example_input_array),
    )


def test_a_file_of_the_smaller_model_is_fine_tuned_further(tmp_path: Path) -> None:
    _, model = fitted(tmp_path, ModelCheckpoint(tmp_path), shrinking())
    plain, callback = Task(), shrinking()
    run = trainer(callbacks=[callback, ModelCheckpoint(tmp_path)], max_epochs=3, default_root_dir=tmp_path)
    run.fit(plain, data(), ckpt_path=str(tmp_path / "shrunk.ckpt"))
    assert run.global_step == 12
    assert shapes(plain.state_dict()) == shapes(model.state_dict())
    assert not torch.equal(plain.net.head.weight, model.net.head.weight)  # pyright: ignore
    run.save_checkpoint(tmp_path / "later.ckpt")
    assert shapes(load_shrunk(Task(), tmp_path / "later.ckpt").state_dict()) == shapes(model.state_dict())


def test_a_file_from_before_the_last_masks_is_refused_with_the_way_to_load_it(tmp_path: Path) -> None:
    files = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    run, model = fitted(tmp_path, files, shrinking())
    before = {name: t.clone() for name, t in model.state_dict().items()}
    early = str(tmp_path / "step=3.ckpt")
    with pytest.raises(ValueError, match=r"step=3.ckpt: units .* alive .*trainer.test\(Task\(...\), ckpt_path"):
        loss(run, ckpt_path=early)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not model._load_state_dict_pre_hooks
    assert loss(trainer(callbacks=[shrinking(), files]), Task(), ckpt_path=early) > 0
    run.fit_loop.max_epochs = 3
    with pytest.raises(ValueError, match=r"from before the model was shrunk.*fit\(Task\(...\), ckpt_path"):
        run.fit(model, data(), ckpt_path=early)


def test_the_best_of_the_final_masks_loads(tmp_path: Path) -> None:
    files = SparseModelCheckpoint(tmp_path, monitor="loss", mode="min")
    run, model = fitted(tmp_path, files, shrinking(), epochs=4)
    assert loss(run, ckpt_path="best") > 0
    assert (tmp_path / "shrunk.ckpt").is_file()
    assert shapes(model.state_dict()) != shapes(Task().state_dict())


@pytest.mark.parametrize("net", [Conv, Heads])
@pytest.mark.parametrize("average", [ema, swa])
def test_averages_are_shrunk_with_the_model(tmp_path: Path, average: Any, net: type[nn.Module]) -> None:
    files = ModelCheckpoint(tmp_path, save_last=True)
    run, model = fitted(tmp_path, average(), files, shrinking(), net=net, epochs=3)
    small = shapes(model.state_dict())
    ends_with = loss(run, model)
    for _ in range(2):
        assert run.validate(model, data(), verbose=False)[0]["validation"] == pytest.approx(ends_with, rel=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss(run, ckpt_path="last")
        assert loss(run, ckpt_path=str(tmp_path / "shrunk.ckpt")) == pytest.approx(ends_with, rel=1e-5)
    assert shapes(model.state_dict()) == small
    run.fit_loop.max_epochs = 4
    run.fit(model, data())
    assert shapes(model.state_dict()) == small


def test_two_callbacks_that_shrink_leave_one_file(tmp_path: Path) -> None:
    def part(name: str) -> PruningCallback:
        pruner = Pruner(Polynomial(0.3, 1, 6, 1), pattern=Channel(), targets=Targets(include=(name,)))
        return PruningCallback(pruner, shrink=True, tag=name)

    files = ModelCheckpoint(tmp_path, save_last=True)
    one, two = "layers.0.linear1", "layers.1.linear1"
    run, model = fitted(tmp_path, files, part(one), part(two), net=Heads)
    ends_with = loss(run, model)
    assert [path.name for path in sorted(tmp_path.glob("shrunk*"))] == ["shrunk.ckpt"]
    loaded = load_shrunk(Task(Heads), tmp_path / "shrunk.ckpt")
    assert shapes(loaded.state_dict()) == shapes(model.state_dict())
    assert loss(run, ckpt_path="last") == pytest.approx(ends_with, rel=1e-5)
    other = trainer(callbacks=[part(one), part(two), ModelCheckpoint(tmp_path, save_last=True)])
    assert loss(other, Task(Heads), ckpt_path=str(tmp_path / "shrunk.ckpt")) == pytest.approx(ends_with, rel=1e-5)


def test_learned_masks(tmp_path: Path) -> None:
    callback = PruningCallback(LearnedMasks(Polynomial(0.5, 1, 6, 1)), shrink=True)
    run, model = fitted(tmp_path, ModelCheckpoint(tmp_path, save_last=True), callback)
    ends_with = loss(run, model)
    assert loss(run, ckpt_path="last") == pytest.approx(ends_with, rel=1e-5)


def test_a_second_run_in_the_folder_keeps_the_first_ones_file(tmp_path: Path) -> None:
    for names in (["shrunk.ckpt"], ["shrunk-v1.ckpt", "shrunk.ckpt"]):
        fitted(tmp_path, ModelCheckpoint(tmp_path, save_last=True), shrinking())
        assert [path.name for path in sorted(tmp_path.glob("shrunk*"))] == names


def test_no_file_where_nobody_saves(tmp_path: Path) -> None:
    for files in (ModelCheckpoint(tmp_path, save_top_k=0), None):
        model = Task()
        run = trainer(
            callbacks=[shrinking(), *([files] if files else [])], max_epochs=2, enable_checkpointing=bool(files)
        )
        run.fit(model, data())
    assert not list(tmp_path.glob("*"))


def test_what_load_shrunk_says_of_a_file_from_before_is_true(tmp_path: Path) -> None:
    fitted(tmp_path, ModelCheckpoint(tmp_path, save_last=True), shrinking())
    with pytest.raises(ValueError, match=r"before its run shrank .*load_state_dict.*shrunk.ckpt beside it"):
        load_shrunk(Task(), tmp_path / "last.ckpt")
    Task().load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    run = trainer(max_epochs=1)
    run.fit(Task(), data())
    run.save_checkpoint(tmp_path / "dense.ckpt")
    with pytest.raises(ValueError, match="there was no PruningCallback"):
        load_shrunk(Task(), tmp_path / "dense.ckpt")


@pytest.mark.parametrize("saves", [True, False])
def test_where_the_check_at_the_end_fails_the_trained_model_is_saved_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: bool
) -> None:
    def fail(*_: Any) -> None:
        raise NotEqualError("outputs differ")

    monkeypatch.setattr("lightning_prune.callbacks.ending.shrink_", fail)
    model = Task()
    run = trainer(
        callbacks=[shrinking(), *([ModelCheckpoint(tmp_path / "files", save_last=True)] if saves else [])],
        max_epochs=2,
        default_root_dir=tmp_path,
        enable_checkpointing=saves,
    )
    with pytest.raises(NotEqualError, match=r"is saved in .*masked.pt.*outputs differ"):
        run.fit(model, data())
    saved = torch.load(tmp_path / ("files" if saves else "") / "masked.pt", weights_only=True)
    again = Task()
    again.load_state_dict(saved)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in saved.items())
    assert int((saved["net.first.weight"] == 0).sum()) > 0


def test_a_recipe_of_version_1_is_read(tmp_path: Path) -> None:
    run, model = fitted(tmp_path, ModelCheckpoint(tmp_path, save_last=True), shrinking())
    checkpoint = torch.load(tmp_path / "shrunk.ckpt", weights_only=True)
    recipe = next(s["shrunk"] for s in checkpoint["callbacks"].values() if "shrunk" in s)
    assert recipe["version"] == 2
    json.dumps(recipe)
    for key in ("removed", "zeros"):
        del recipe[key]
    recipe["version"] = 1
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert shapes(load_shrunk(Task(), tmp_path / "old.ckpt").state_dict()) == shapes(model.state_dict())
    assert loss(run, model) > 0
