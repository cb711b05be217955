"""MNIST and Fashion-MNIST: 70,000 images of 28x28 in ten classes, in the same four files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_prune.families import LightningDataModule
from lightning_prune.tasks.data.files import DataFile, paths, prepare
from lightning_prune.tasks.data.idx import read_idx
from lightning_prune.tasks.data.loaders import (
    Batch,
    TrainingLoader,
    check_batch_size,
    evaluation_loader,
    training_loader,
)
from lightning_prune.tasks.data.tensors import Tensors

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Published:
    """What tells one set in MNIST's format from another.

    Attributes:
        folder: Its folder below ``root``, as torchvision names it.
        url: Where its files lie, compressed with gzip; ends in a slash.
        sha256: Of the four uncompressed files, in the order of ``NAMES``.
        mean: Of the training pixels, scaled to [0, 1].
        deviation: Standard deviation of the same.
    """

    folder: str
    url: str
    sha256: tuple[str, str, str, str]
    mean: float
    deviation: float


class MNIST(LightningDataModule):
    """Handwritten digits: float32 images 1x28x28, int64 labels; the last training images are for validation.

    Args:
        root: Folder that holds ``mnist/raw/`` with the four files, plain or with ``.gz``.
        batch_size: Images per batch and process.
        validation: Images kept from training for validation; 0 for none, of which Lightning warns.
        normalize: Pixels of mean 0 and standard deviation 1 over the training set, otherwise in [0, 1].
        download: Fetch missing files.
        mirror: Address to fetch from instead of the set's own site.
        seed: Order of the training images.

    Raises:
        ValueError: If a number is out of its range.
        DataNotFound: When training starts, if files are missing and ``download`` is False or fails.
        DataCorrupt: When training starts, if a file is not the published one.
    """

    published: ClassVar = Published(
        folder="mnist",
        url="https://storage.googleapis.com/cvdf-datasets/mnist/",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        mean=0.1307,
        deviation=0.3081,
    )

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 128,
        validation: int = 5000,
        normalize: bool = True,
        download: bool = False,
        mirror: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        if validation < 0:
            raise ValueError(f"validation={validation}: give 0 or more")
        self.folder = Path(root) / self.published.folder / "raw"
        self.batch_size = batch_size
        self.validation = validation
        self.normalize = normalize
        self.download = download
        self.seed = seed
        site = (mirror or self.published.url).rstrip("/")
        self.files = [
            DataFile(name, sha256, f"{site}/{name}.gz")
            for name, sha256 in zip(NAMES, self.published.sha256, strict=True)
        ]

    def prepare_data(self) -> None:
        """Verify the files by sha256, and fetch missing ones if asked; Lightning calls this on one process a node."""
        prepare(self.folder, self.files, self.download)

    def setup(self, stage: str) -> None:
        """Read what ``stage`` (fit, validate, test, predict) needs."""
        if stage == "test":
            self.test_set = Tensors(*self._read(self.files[2:]))
            return
        images, labels = self._read(self.files[:2])
        kept = len(images) - self.validation
        if kept < 1:
            raise ValueError(
                f"validation={self.validation}: there are {len(images)} training images; leave some for training"
            )
        self.train_set = Tensors(images[:kept], labels[:kept])
        self.validation_set = Tensors(images[kept:], labels[kept:]) if self.validation else None

    def train_dataloader(self) -> TrainingLoader:
        """Training images in an order given by ``seed`` and epoch."""
        return training_loader(self.train_set, self.batch_size, self.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Validation images, always in the same order; no loader if there are none."""
        return evaluation_loader(self.validation_set, self.batch_size) if self.validation_set else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test images, always in the same order."""
        return evaluation_loader(self.test_set, self.batch_size)

    def _read(self, files: Sequence[DataFile]) -> tuple[Tensor, Tensor]:
        pixels, labels = (read_idx(path) for path in paths(self.folder, files))
        images = pixels.unsqueeze(1).to(torch.float32).div_(255)
        if self.normalize:
            images.sub_(self.published.mean).div_(self.published.deviation)
        return images, labels.to(torch.int64)


class FashionMNIST(MNIST):
    """Photographs of clothing, in MNIST's format and with its arguments; the files lie in ``fashion_mnist/raw/``."""

    published: ClassVar = Published(
        folder="fashion_mnist",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        mean=0.2860,
        deviation=0.3530,
    )
