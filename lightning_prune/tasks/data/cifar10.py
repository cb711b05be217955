"""CIFAR-10: 60,000 photographs of 32x32 in ten classes, in its published binary form, which needs no unpickling."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_prune.families import LightningDataModule
from lightning_prune.tasks.data.archive import fetch_members
from lightning_prune.tasks.data.augmentation import ShiftAndMirror
from lightning_prune.tasks.data.files import DataFile, absent, open_plain, paths, prepare
from lightning_prune.tasks.data.loaders import (
    Batch,
    TrainingLoader,
    check_batch_size,
    evaluation_loader,
    training_loader,
)
from lightning_prune.tasks.data.tensors import Tensors

SITE = "https://www.cs.toronto.edu/~kriz"
ARCHIVE = "cifar-10-binary.tar.gz"
SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
ROW = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue pixels
# Of the training pixels, scaled to [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2470, 0.2435, 0.2616)


@final
class CIFAR10(LightningDataModule):
    """Photographs: float32 images 3x32x32 of mean 0 and standard deviation 1, int64 labels.

    Args:
        root: Folder that holds ``cifar10/cifar-10-batches-bin/`` with the six ``.bin`` files.
        batch_size: Images per batch and process.
        train: Training images to use; None for all that validation leaves.
        validation: Images kept from training for validation; 0 for none, of which Lightning warns.
        augment: Mirror every other training image and move all, anew in each epoch.
        shift: Pixels that they move at most.
        download: Fetch missing files.
        mirror: Address to fetch from instead of the set's own site.
        seed: Order and augmentation of the training images.
        split_seed: Which images are for training and validation.

    Raises:
        ValueError: If a number is out of its range.
        DataNotFound: When training starts, if files are missing and ``download`` is False or fails.
        DataCorrupt: When training starts, if a file is not the published one.
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 128,
        train: int | None = None,
        validation: int = 5000,
        augment: bool = True,
        shift: int = 4,
        download: bool = False,
        mirror: str | None = None,
        seed: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        leasts = (
            ("train", train, 1),
            ("validation", validation, 0),
            ("shift", shift, 0),
            ("split_seed", split_seed, 0),
        )
        for name, number, least in leasts:
            if number is not None and number < least:
                raise ValueError(f"{name}={number}: give {least} or more")
        self.folder = Path(root) / "cifar10" / "cifar-10-batches-bin"
        self.batch_size = batch_size
        self.train = train
        self.validation = validation
        self.augment = augment
        self.shift = shift
        self.download = download
        self.seed = seed
        self.split_seed = split_seed
        self.archive = f"{(mirror or SITE).rstrip('/')}/{ARCHIVE}"
        self.files = [DataFile(name, sha256, self.archive) for name, sha256 in SHA256.items()]

    def prepare_data(self) -> None:
        """Verify the files by sha256, and fetch missing ones if asked; Lightning calls this on one process a node."""
        missing = absent(self.folder, self.files)
        if missing and self.download:
            fetch_members(self.archive, self.folder, missing)
        prepare(self.folder, self.files, download=False)

    def setup(self, stage: str) -> None:
        """Read what ``stage`` (fit, validate, test, predict) needs."""
        if stage == "test":
            self.test_set = Tensors(*self._read(self.files[5:]), Pixels())
            return
        images, labels = self._read(self.files[:5])
        train, validation = self._split(len(images))
        shift = ShiftAndMirror(len(train), self.seed, self.shift) if self.augment else None
        self.train_set = Tensors(images[train], labels[train], Pixels(shift))
        self.validation_set = Tensors(images[validation], labels[validation], Pixels()) if self.validation else None

    def train_dataloader(self) -> TrainingLoader:
        """Training images in an order and with an augmentation given by ``seed`` and epoch."""
        return training_loader(self.train_set, self.batch_size, self.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Validation images, always in the same order; no loader if there are none."""
        return evaluation_loader(self.validation_set, self.batch_size) if self.validation_set else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test images, always in the same order."""
        return evaluation_loader(self.test_set, self.batch_size)

    def _split(self, count: int) -> tuple[Tensor, Tensor]:
        """Which of ``count`` images are for training and for validation; fewer for training are some of the same."""
        left = count - self.validation
        train = left if self.train is None else self.train
        if left < train or train < 1:
            raise ValueError(f"train={self.train}, validation={self.validation}: there are {count} images for both")
        order = torch.from_numpy(np.random.default_rng(self.split_seed).permutation(count))
        return order[:train], order[left:]

    def _read(self, files: Sequence[DataFile]) -> tuple[Tensor, Tensor]:
        rows = torch.cat([read_rows(path) for path in paths(self.folder, files)])
        return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long()


@dataclass(frozen=True)
class Pixels:
    """Images as bytes, moved and mirrored if ``shift`` is given, become floats of mean 0 and standard deviation 1."""

    shift: ShiftAndMirror | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation of ``epoch``."""
        if self.shift is not None:
            self.shift.set_epoch(epoch)

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Float32 images, the channels last in memory: with that a CPU trains a ResNet-20 a quarter faster."""
        if self.shift is not None:
            images = self.shift(images, rows)
        mean, deviation = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(deviation)


def read_rows(path: Path) -> Tensor:
    """The images in the file ``path``, plain or ``.gz``: bytes ``(images, 3073)``, each row a label and its pixels.

    Raises:
        ValueError: If the file does not hold whole rows with labels below 10.
    """
    with open_plain(path) as stream:
        content = np.frombuffer(stream.read(), np.uint8)
    if content.size == 0 or content.size % ROW or content[::ROW].max() > 9:
        raise ValueError(
            f"{path}: {content.size} bytes are not rows of {ROW}, each with a label below 10 and its pixels"
        )
    return torch.from_numpy(content.reshape(-1, ROW).copy())  # torch needs memory that it may write to
