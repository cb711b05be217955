"""CIFAR-10 as the older system's example sees it: crops of 24x24, each standardised by itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

from torch.utils.data import DataLoader

from lightning_prune.families import LightningDataModule
from lightning_prune.tasks.data.cifar10 import CIFAR10
from lightning_prune.tasks.data.crops import CentralCrop, Look, RandomCrops
from lightning_prune.tasks.data.loaders import Batch, TrainingLoader, evaluation_loader, training_loader
from lightning_prune.tasks.data.tensors import Tensors

SIZE = 32


@final
class CIFAR10Crops(LightningDataModule):
    """Photographs: float32 images 3 x crop x crop, each of mean 0 and standard deviation 1, int64 labels.

    Training images are cropped at random, mirrored, made brighter or darker and changed in contrast, anew in each
    epoch; of the others the middle is taken.

    Args:
        root: Folder that holds ``cifar10/cifar-10-batches-bin/`` with the six ``.bin`` files.
        batch_size: Images per batch and process.
        train: Training images to use; None for all that validation leaves.
        validation: Images kept from training for validation; 0 for none.
        crop: Pixels of the part that is taken, both ways.
        brightness: The most that is added to or taken from all pixels, of 255.
        contrast: Least and largest factor on each channel's distance from its mean.
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
        validation: int = 0,
        crop: int = 24,
        brightness: float = 63.0,
        contrast: Sequence[float] = (0.2, 1.8),
        download: bool = False,
        mirror: str | None = None,
        seed: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        self.look = Look(crop, brightness, tuple(contrast))  # pyright: ignore[reportArgumentType] - it is checked
        if crop > SIZE:
            raise ValueError(f"crop={crop}: the images have {SIZE} pixels")
        self.photographs = CIFAR10(root, batch_size, train, validation, False, 0, download, mirror, seed, split_seed)

    def prepare_data(self) -> None:
        """Verify the files by sha256, and fetch missing ones if asked; Lightning calls this on one process a node."""
        self.photographs.prepare_data()

    def setup(self, stage: str) -> None:
        """Read what ``stage`` (fit, validate, test, predict) needs."""
        read, middle = self.photographs, CentralCrop(self.look.crop)
        read.setup(stage)
        if stage == "test":
            self.test_set = _with(read.test_set, middle)
            return
        self.train_set = _with(read.train_set, RandomCrops(len(read.train_set), SIZE, read.seed, self.look))
        self.validation_set = _with(read.validation_set, middle) if read.validation_set else None

    def train_dataloader(self) -> TrainingLoader:
        """Training images in an order and with an augmentation given by ``seed`` and epoch."""
        return training_loader(self.train_set, self.photographs.batch_size, self.photographs.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Validation images, always in the same order; no loader if there are none."""
        return evaluation_loader(self.validation_set, self.photographs.batch_size) if self.validation_set else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test images, always in the same order."""
        return evaluation_loader(self.test_set, self.photographs.batch_size)


def _with(images: Tensors, change: CentralCrop | RandomCrops) -> Tensors:
    return Tensors(images.inputs, images.targets, change)
