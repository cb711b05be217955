"""MNIST and Fashion-MNIST: the real files where there are some, small ones in their format everywhere."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything

from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.files import DataCorrupt, DataNotFound
from lightning_prune.tasks.data.mnist import MNIST, NAMES, FashionMNIST, Published
from lightning_prune.tasks.nets import lenet300

WriteIdx = Callable[[int, tuple[int, ...], bytes], bytes]


@pytest.fixture
def contents(idx_bytes: WriteIdx) -> list[bytes]:
    """30 training and 10 test images, the i-th all of grey i and of class i % 10."""

    def images(count: int) -> bytes:
        return idx_bytes(8, (count, 28, 28), b"".join(bytes([i]) * 784 for i in range(count)))

    def labels(count: int) -> bytes:
        return idx_bytes(8, (count,), bytes(i % 10 for i in range(count)))

    return [images(30), labels(30), images(10), labels(10)]


@pytest.fixture
def small(contents: list[bytes]) -> type[MNIST]:
    """MNIST, but with ``contents`` published."""
    sums = [hashlib.sha256(content).hexdigest() for content in contents]

    class Small(MNIST):
        published: ClassVar = Published("small", "http://127.0.0.1:1/", (sums[0], sums[1], sums[2], sums[3]), 0.5, 0.25)

    return Small


@pytest.fixture
def root(tmp_path: Path, contents: list[bytes]) -> Path:
    folder = tmp_path / "root" / "small" / "raw"
    folder.mkdir(parents=True)
    for name, content in zip(NAMES, contents, strict=True):
        (folder / name).write_bytes(content)
    return tmp_path / "root"


@pytest.mark.parametrize(("normalize", "mean", "deviation"), [(True, 0.5, 0.25), (False, 0.0, 1.0)])
def test_images_are_split_and_scaled(
    small: type[MNIST], root: Path, normalize: bool, mean: float, deviation: float
) -> None:
    data = small(root, validation=10, normalize=normalize)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert data.validation_set is not None
    for part, first, count in ((data.train_set, 0, 20), (data.validation_set, 20, 10), (data.test_set, 0, 10)):
        grey = torch.arange(first, first + count, dtype=torch.float32)
        assert part.inputs.shape == (count, 1, 28, 28)
        expected = ((grey / 255 - mean) / deviation).view(-1, 1, 1, 1).expand_as(part.inputs)
        torch.testing.assert_close(part.inputs, expected)
        assert torch.equal(part.targets, grey.long() % 10)


def test_files_are_fetched_from_a_mirror(
    small: type[MNIST], contents: list[bytes], site: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = site
    for name, content in zip(NAMES, contents, strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    data = small(tmp_path, validation=0, download=True, mirror=address)
    data.prepare_data()
    assert {path.name for path in (tmp_path / "small" / "raw").iterdir()} == set(NAMES)
    data.setup("fit")
    assert len(data.train_set) == 30
    assert data.val_dataloader() == []


def test_a_run_without_validation(small: type[MNIST], root: Path, make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(max_epochs=1)
    with pytest.warns(UserWarning, match="Total length of `list` across ranks is zero"):
        trainer.fit(Classifier(lenet300()), datamodule=small(root, batch_size=7, validation=0))
    assert trainer.global_step == 5
    assert set(trainer.callback_metrics) == {"train/loss", "train/accuracy"}


def test_missing_files_stop_a_run_before_it_starts(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        make_trainer(max_steps=1).fit(Classifier(lenet300()), datamodule=MNIST(tmp_path))
    assert str(tmp_path / "mnist" / "raw") in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)
    assert "data.download=true" in str(caught.value)


def test_another_file_than_the_published_is_refused(small: type[MNIST], root: Path) -> None:
    path = root / "small" / "raw" / NAMES[1]
    path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    with pytest.raises(DataCorrupt, match=f"{NAMES[1]}: sha256 is"):
        small(root).prepare_data()


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("validation", -1), ("validation", 30)])
def test_numbers_out_of_range_are_named(small: type[MNIST], root: Path, name: str, value: int) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name}={value}"):
        small(root, **options).setup("fit")


@pytest.mark.parametrize(
    ("kind", "per_class"),
    [(MNIST, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]), (FashionMNIST, [1000] * 10)],
)
def test_the_real_files_are_the_published_ones(data_root: Path, kind: type[MNIST], per_class: list[int]) -> None:
    data = kind(data_root)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert data.validation_set is not None
    assert [len(part) for part in (data.train_set, data.validation_set, data.test_set)] == [55000, 5000, 10000]
    assert torch.bincount(data.test_set.targets).tolist() == per_class
    images = torch.cat([data.train_set.inputs, data.validation_set.inputs])
    assert abs(images.mean().item()) < 1e-3
    assert images.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_lenet300_learns_mnist(data_root: Path, make_trainer: Callable[..., Trainer]) -> None:
    seed_everything(0)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(Classifier(lenet300()), datamodule=MNIST(data_root, batch_size=128))
    assert trainer.callback_metrics["val/accuracy"] > 0.95
