"""CIFAR-10: the real files where there are some, small ones in their format everywhere."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data import cifar10
from lightning_prune.tasks.data.cifar10 import CIFAR10, DEVIATION, MEAN, ROW, read_rows
from lightning_prune.tasks.data.files import DataCorrupt, DataNotFound
from lightning_prune.tasks.nets import MLP
from lightning_prune.tasks.resnet import resnet20

PER_FILE = 8
FOLDER = Path("cifar10", "cifar-10-batches-bin")


@pytest.fixture
def contents() -> dict[str, bytes]:
    """8 images a file, the i-th of all 48 with all its pixels i, of class i % 10."""
    return {
        name: b"".join(bytes([i % 10]) + bytes([i]) * (ROW - 1) for i in range(PER_FILE * at, PER_FILE * (at + 1)))
        for at, name in enumerate(cifar10.SHA256)
    }


@pytest.fixture
def root(tmp_path: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """``contents`` on disk, and published."""
    (tmp_path / "root" / FOLDER).mkdir(parents=True)
    for name, content in contents.items():
        (tmp_path / "root" / FOLDER / name).write_bytes(content)
        monkeypatch.setitem(cifar10.SHA256, name, hashlib.sha256(content).hexdigest())
    return tmp_path / "root"


def ready(root: Path, **options: Any) -> CIFAR10:
    chosen: dict[str, Any] = {"batch_size": 4, "validation": 10, "augment": False, **options}
    data = CIFAR10(root, **chosen)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def identities(images: Tensor) -> list[int]:
    """Which images these are: the number that all their pixels are, unless black has come in."""
    bytes_ = images * 255 * torch.tensor(DEVIATION).view(3, 1, 1) + 255 * torch.tensor(MEAN).view(3, 1, 1)
    return bytes_.flatten(1).max(1).values.round().int().tolist()


def seen(loader: Any) -> list[int]:
    found: list[int] = []
    for images, labels in loader:
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.shape[1:] == (3, 32, 32)
        found += identities(images)
        assert [i % 10 for i in found[-len(labels) :]] == labels.tolist()
    return found


def test_the_split_is_whole_and_disjoint(root: Path) -> None:
    data = ready(root)
    train, validation = seen(data.train_dataloader()), seen(data.val_dataloader())
    assert (len(train), len(validation)) == (30, 10)
    assert sorted(train + validation) == list(range(40))
    assert seen(data.test_dataloader()) == list(range(40, 48))


def test_the_split_follows_its_own_seed_only(root: Path) -> None:
    parts = [seen(ready(root, **seeds).val_dataloader()) for seeds in ({"seed": 1}, {"seed": 2}, {"split_seed": 1})]
    assert parts[0] == parts[1] != parts[2]


def test_fewer_training_images_are_some_of_the_same(root: Path) -> None:
    everything, some = ready(root), ready(root, train=12)
    assert len(some.train_set) == 12
    assert set(seen(some.train_dataloader())) < set(seen(everything.train_dataloader()))
    assert seen(some.val_dataloader()) == seen(everything.val_dataloader())


def test_batches_lie_channels_last(root: Path) -> None:
    images, _ = next(iter(ready(root, augment=True).train_dataloader()))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_only_training_images_are_augmented_and_anew_in_each_epoch(root: Path) -> None:
    data, plain = ready(root, augment=True), ready(root)
    first = torch.cat([images for images, _ in data.train_dataloader()])
    data.train_set.set_epoch(1)
    second = torch.cat([images for images, _ in data.train_dataloader()])
    assert identities(first) == identities(second) == seen(plain.train_dataloader())
    assert not torch.equal(first, second)
    for part in ("val_dataloader", "test_dataloader"):
        for (images, _), (expected, _) in zip(getattr(data, part)(), getattr(plain, part)(), strict=True):
            assert torch.equal(images, expected)


def test_without_a_shift_no_black_comes_in(root: Path) -> None:
    moved, plain = ready(root, augment=True, shift=0), ready(root)
    for (images, _), (expected, _) in zip(moved.train_dataloader(), plain.train_dataloader(), strict=True):
        assert torch.equal(images, expected)  # mirroring changes no image whose pixels are all alike


def test_a_run_resumed_anywhere_ends_in_the_bits_of_one_that_never_stopped(
    root: Path, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def fit(resume: Path | None) -> dict[str, Tensor]:
        seed_everything(0)
        model = Classifier(MLP((ROW - 1, 10)))
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(max_epochs=3, callbacks=[keep], enable_checkpointing=True)
        trainer.fit(model, datamodule=ready(root, augment=True), ckpt_path=resume)
        assert trainer.global_step == 24
        return model.state_dict()

    whole = fit(None)
    for step in (1, 8, 11, 16):  # 8 and 16 are ends of an epoch
        resumed = fit(tmp_path / f"step={step}.ckpt")
        for name, weight in whole.items():
            assert torch.equal(weight, resumed[name]), (step, name)


def test_missing_files_are_fetched_from_the_archive(
    root: Path, contents: dict[str, bytes], site: tuple[str, Path]
) -> None:
    address, published = site
    with tarfile.open(published / cifar10.ARCHIVE, "w:gz") as archive:
        archive.add(root / FOLDER, FOLDER.name)
    for name in ("data_batch_2.bin", "test_batch.bin"):
        (root / FOLDER / name).unlink()
    CIFAR10(root, download=True, mirror=address).prepare_data()
    assert {path.name: path.read_bytes() for path in (root / FOLDER).iterdir()} == contents
    (published / cifar10.ARCHIVE).unlink()
    CIFAR10(root, download=True, mirror=address).prepare_data()  # nothing is missing: nothing is fetched


def test_missing_files_stop_a_run_before_it_starts(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        make_trainer(max_steps=1).fit(Classifier(resnet20()), datamodule=CIFAR10(tmp_path))
    assert str(tmp_path / FOLDER) in str(caught.value)
    assert all(name in str(caught.value) for name in cifar10.SHA256)
    assert "data.download=true" in str(caught.value)


def test_another_file_than_the_published_is_refused(root: Path) -> None:
    path = root / FOLDER / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    with pytest.raises(DataCorrupt, match=r"data_batch_3\.bin: sha256 is"):
        CIFAR10(root).prepare_data()


@pytest.mark.parametrize("content", [b"", bytes(ROW - 1), bytes(ROW + 1), b"\x0a" + bytes(ROW - 1)])
def test_a_file_that_is_no_rows_of_images_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "batch.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"batch\.bin: {len(content)} bytes are not rows of 3073"):
        read_rows(tmp_path / "batch.bin")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("train", 0),
        ("train", 31),
        ("validation", -1),
        ("validation", 40),
        ("shift", -1),
        ("split_seed", -1),
    ],
)
def test_numbers_out_of_range_are_named(root: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ready(root, **{name: value})


@pytest.fixture
def real_root(data_root: Path) -> Path:
    if not (data_root / FOLDER).is_dir():
        pytest.skip(f"{FOLDER} is not below LIGHTNING_PRUNE_DATA")
    return data_root


def test_the_real_files_are_the_published_ones(real_root: Path) -> None:
    data = ready(real_root, validation=5000, batch_size=1000)
    assert data.validation_set is not None
    assert [len(part) for part in (data.train_set, data.validation_set, data.test_set)] == [45000, 5000, 10000]
    assert torch.bincount(data.test_set.targets).tolist() == [1000] * 10
    assert torch.bincount(torch.cat([data.train_set.targets, data.validation_set.targets])).tolist() == [5000] * 10
    for channel in range(3):
        parts = [part.inputs[:, channel].flatten() for part in (data.train_set, data.validation_set)]
        counts = torch.stack([torch.bincount(part, minlength=256) for part in parts]).sum(0)
        grey, share = torch.arange(256) / 255, counts / counts.sum()
        mean = (grey * share).sum()
        assert round(mean.item(), 4) == MEAN[channel]
        assert ((grey - mean).square() * share).sum().sqrt().item() == pytest.approx(DEVIATION[channel], abs=1e-4)


def test_a_small_net_learns_cifar10(real_root: Path, make_trainer: Callable[..., Trainer]) -> None:
    seed_everything(0)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(Classifier(MLP((ROW - 1, 64, 10))), datamodule=CIFAR10(real_root, train=10000, validation=1000))
    assert trainer.callback_metrics["val/accuracy"] > 0.25


@pytest.mark.slow
def test_resnet20_learns_cifar10(real_root: Path, make_trainer: Callable[..., Trainer]) -> None:
    seed_everything(0)
    trainer = make_trainer(max_epochs=2)
    data = CIFAR10(real_root, batch_size=64, train=10000, validation=1000)
    trainer.fit(Classifier(resnet20(), lr=3e-3), datamodule=data)
    assert trainer.callback_metrics["val/accuracy"] > 0.4
