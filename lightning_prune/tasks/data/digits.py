"""The 8x8 handwritten digits that come with scikit-learn: real data without a download."""

from typing import final

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader

from lightning_prune.families import LightningDataModule
from lightning_prune.tasks.data.loaders import (
    Batch,
    TrainingLoader,
    check_batch_size,
    evaluation_loader,
    training_loader,
)
from lightning_prune.tasks.data.tensors import Tensors

SAMPLES = 1797


@final
class Digits(LightningDataModule):
    """1,797 images of 1x8x8 in [0, 1], 10 classes, split the same way for every ``seed``, each class by its share.

    Args:
        batch_size: Images per batch and process.
        validation: Images for validation.
        test: Images for the test; the rest is for training.
        seed: Order of the training images.
        split_seed: Which images are for what.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self, batch_size: int = 32, validation: int = 250, test: int = 300, seed: int = 0, split_seed: int = 0
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        # Ten classes: scikit-learn's stratified split needs at least one image of each on either side.
        if validation < 10 or test < 10 or validation + test > SAMPLES - 10:
            raise ValueError(
                f"validation={validation}, test={test}: give 10 or more to each, leave 10 of the {SAMPLES} to train on"
            )
        self.batch_size = batch_size
        self.validation = validation
        self.test = test
        self.seed = seed
        self.split_seed = split_seed

    def setup(self, stage: str) -> None:
        """Load and split the images, the same for every stage."""
        pixels, labels = load_digits(return_X_y=True)
        images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16  # pixels count from 0 to 16
        targets = torch.tensor(labels, dtype=torch.int64)
        rest, test = train_test_split(
            range(SAMPLES), test_size=self.test, stratify=labels, random_state=self.split_seed
        )
        train, validation = train_test_split(
            rest, test_size=self.validation, stratify=labels[rest], random_state=self.split_seed
        )
        self.train_set, self.validation_set, self.test_set = (
            Tensors(images[part], targets[part]) for part in (train, validation, test)
        )

    def train_dataloader(self) -> TrainingLoader:
        """Training images in an order given by ``seed`` and epoch."""
        return training_loader(self.train_set, self.batch_size, self.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation images, always in the same order."""
        return evaluation_loader(self.validation_set, self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test images, always in the same order."""
        return evaluation_loader(self.test_set, self.batch_size)
