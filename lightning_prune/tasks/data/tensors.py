"""A data set held in memory, whose batch is one indexing."""

from collections.abc import Sequence
from typing import Protocol, final

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Change(Protocol):
    """What becomes of a batch's inputs on their way to the network."""

    def set_epoch(self, epoch: int) -> None:
        """Told before each epoch of training, counted from 0."""
        ...

    def __call__(self, inputs: Tensor, rows: Tensor, /) -> Tensor:
        """The inputs changed; ``rows`` says which samples they are."""
        ...


@final
class Tensors(Dataset[tuple[Tensor, Tensor]]):
    """Inputs and targets, one row each per sample.

    ``DataLoader`` asks for a whole batch at once where it finds ``__getitems__``; with a ``collate_fn`` that hands its
    argument on, a batch costs two index operations instead of a stack of its samples.

    Args:
        inputs: One row per sample.
        targets: As many rows.
        change: Applied to the inputs of each batch.

    Raises:
        ValueError: If there are no samples, or the two have different numbers of them.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, change: Change | None = None) -> None:
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(
                f"inputs has {len(inputs)} samples, targets has {len(targets)}: give as many of each, at least 1"
            )
        self.inputs = inputs
        self.targets = targets
        self.change = change

    def set_epoch(self, epoch: int) -> None:
        """Tell ``change`` the epoch of the batches to come, counted from 0."""
        if self.change is not None:
            self.change.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor(indices)
        inputs = self.inputs[rows]
        return inputs if self.change is None else self.change(inputs, rows), self.targets[rows]
