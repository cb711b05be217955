"""Random shifts and reflections of images, as a function of the seed, the epoch and the sample alone."""

from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

STREAM = 1  # keeps these draws apart from those of the samples' order, which has the same seed and epoch


@final
class ShiftAndMirror:
    """Moves each image by up to ``padding`` pixels both ways, black where nothing comes in, and mirrors every other.

    That is the random crop of a padded image. Each sample has its draw in each epoch, wherever in the order it comes:
    a resumed run, another batch size or more processes change nothing. A whole batch is moved at once.

    Args:
        samples: Number of samples.
        seed: 0 or more.
        padding: Pixels that an image moves at most.

    Raises:
        ValueError: If a number is below 0.
    """

    def __init__(self, samples: int, seed: int, padding: int = 4) -> None:
        for name, number in (("seed", seed), ("padding", padding)):
            if number < 0:
                raise ValueError(f"{name}={number}: give 0 or more")
        self.samples = samples
        self.seed = seed
        self.padding = padding
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw for ``epoch``, counted from 0."""
        generator = np.random.default_rng((self.seed, epoch, STREAM))
        shifts = generator.integers(0, 2 * self.padding + 1, (self.samples, 2))
        self.shifts = torch.from_numpy(shifts)
        self.mirrored = torch.from_numpy(generator.integers(0, 2, self.samples, dtype=np.uint8)).bool()

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Moved ``images`` ``(batch, channels, height, width)``; ``rows`` says which samples they are."""
        height, width = images.shape[2:]
        windows = pad(images, [self.padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        top, left = self.shifts[rows].unbind(1)
        moved = windows[torch.arange(len(rows)), :, top, left]
        return torch.where(self.mirrored[rows].view(-1, 1, 1, 1), moved.flip(3), moved)
