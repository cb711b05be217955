"""A plain text as windows of characters, each to predict the next."""

from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_prune.families import LightningDataModule
from lightning_prune.tasks.data.files import DataFile, open_plain, paths, prepare
from lightning_prune.tasks.data.loaders import (
    Batch,
    TrainingLoader,
    check_batch_size,
    evaluation_loader,
    training_loader,
)
from lightning_prune.tasks.data.tensors import Tensors


@final
class Shakespeare(LightningDataModule):
    """Windows that do not overlap: the first 90 % of the text to train on, 5 % to validate, the last 5 % to test.

    A batch is ``(characters, next_characters)``, int64 places in ``vocabulary``, each ``(batch, length)``. The text is
    ``root/shakespeare/shakespeare.txt``. No single site publishes one, so any plain text serves; the recipes' results
    are for the 5,057,198 ASCII characters with the sha256
    ``da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387``.

    Args:
        root: Folder that holds ``shakespeare/shakespeare.txt``, in UTF-8.
        batch_size: Windows per batch and process.
        length: Characters per window.
        sha256: Refuse any other text; None takes every text.
        url: Where to fetch the text.
        download: Fetch the text from ``url`` if it is missing.
        seed: Order of the training windows.

    Attributes:
        vocabulary: The text's different characters in ascending order, after ``setup``.

    Raises:
        ValueError: If a number is out of its range, or the text too short for windows of ``length``.
        DataNotFound: When training starts, if the text is missing and cannot be fetched.
        DataCorrupt: When training starts, if the text has another ``sha256``.
    """

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 64,
        length: int = 128,
        sha256: str | None = None,
        url: str | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        if length < 1:
            raise ValueError(f"length={length}: give 1 character or more")
        self.folder = Path(root) / "shakespeare"
        self.batch_size = batch_size
        self.length = length
        self.download = download
        self.seed = seed
        self.vocabulary: str | None = None
        self.file = DataFile("shakespeare.txt", sha256, url, note="any plain text works")

    def prepare_data(self) -> None:
        """Verify the text, and fetch it if asked; Lightning calls this on one process a node."""
        prepare(self.folder, [self.file], self.download)

    def setup(self, stage: str) -> None:
        """Read and split the text, the same for every stage."""
        with open_plain(paths(self.folder, [self.file])[0]) as stream:
            self.vocabulary, places = encode(stream.read().decode())
        ends = [len(places) * percent // 100 for percent in (90, 95)]
        parts = places.tensor_split(ends)
        self.train_set, self.validation_set, self.test_set = (windows(part, self.length) for part in parts)

    def train_dataloader(self) -> TrainingLoader:
        """Training windows in an order given by ``seed`` and epoch."""
        return training_loader(self.train_set, self.batch_size, self.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation windows in the order of the text."""
        return evaluation_loader(self.validation_set, self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test windows in the order of the text."""
        return evaluation_loader(self.test_set, self.batch_size)


def encode(text: str) -> tuple[str, Tensor]:
    """The different characters of ``text`` in ascending order, and the place of each character among them, int64."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    # Counting is linear where np.unique sorts: 20 ms instead of 500 for five million characters.
    used = np.flatnonzero(np.bincount(codes))
    places = np.zeros(used[-1] + 1 if len(used) else 0, dtype=np.int64)
    places[used] = np.arange(len(used))
    return "".join(map(chr, used)), torch.from_numpy(places[codes])


def windows(places: Tensor, length: int) -> Tensors:
    """Cut a text, int64 ``(n,)``, into inputs and, one character ahead, targets: both views ``(windows, length)``.

    Raises:
        ValueError: If the text has not even ``length + 1`` characters.
    """
    count = (len(places) - 1) // length
    if count < 1:
        raise ValueError(
            f"length={length}: a part of the text has {len(places)} characters and needs one more than length"
        )
    end = count * length
    return Tensors(places[:end].view(count, length), places[1 : end + 1].view(count, length))
