"""A data set held in memory, whose batch is one indexing."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.utils.data import Dataset


@final
class Tensors(Dataset[tuple[Tensor, Tensor]]):
    """Inputs and targets, one row each per sample.

    ``DataLoader`` asks for a whole batch at once where it finds ``__getitems__``; with a ``collate_fn`` that hands its
    argument on, a batch costs two index operations instead of a stack of its samples.

    Raises:
        ValueError: If there are no samples, or the two have different numbers of them.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(
                f"inputs has {len(inputs)} samples, targets has {len(targets)}: give as many of each, at least 1"
            )
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor(indices)
        return self.inputs[rows], self.targets[rows]
