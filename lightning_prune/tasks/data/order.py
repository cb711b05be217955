"""The order of the samples in an epoch, as a function of the seed and the epoch alone."""

from collections.abc import Iterator
from typing import final

import numpy as np
from torch.utils.data import Sampler


@final
class EpochOrder(Sampler[int]):
    """A permutation of ``range(size)`` for each ``(seed, epoch)``, so a resumed run sees the order it would have seen.

    Torch's ``RandomSampler`` draws from the global generator, whose state a checkpoint does not hold. Lightning calls
    ``set_epoch``, and on several processes deals this order out among them, shuffled once more by its own seed.

    Args:
        size: Number of samples.
        seed: 0 or more.
    """

    def __init__(self, size: int, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed={seed}: give 0 or more")
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of ``epoch``, counted from 0, for the iterations to come."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        # numpy mixes both numbers in full; seed + epoch would give two seeds the same orders, one epoch apart.
        return iter(np.random.default_rng((self.seed, self.epoch)).permutation(self.size).tolist())
