"""Small batches of the kind that a network takes, for whoever wants to trace it: its ``example_input``.

Networks hold theirs as a plain attribute, not a buffer, so it enters neither ``state_dict`` nor optimizer.
"""

from math import prod

import torch
from torch import Tensor


def example_images(*shape: int) -> Tensor:
    """Two images of ``shape``, or two rows of features: float32, spread evenly over [-1, 1], no two pixels alike."""
    return torch.linspace(-1, 1, 2 * prod(shape)).view(2, *shape)


def example_characters(vocab: int, length: int) -> Tensor:
    """Two texts of ``length`` characters, int64 below ``vocab``."""
    return torch.arange(2 * length).view(2, length) % vocab
