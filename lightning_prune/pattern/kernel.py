"""Whole kernels of a convolution as units."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune.pattern.protocol import Tiles
from lightning_prune.shards import mean_of_rows


@dataclass(frozen=True)
class Kernel:
    """All weights between one input channel and one output channel: a k x k slice of a convolution's weight.

    A kernel's score is the mean of its weights' scores. In a linear weight and in a 1 x 1 convolution a kernel is a
    single weight. The budget counts weights, whatever the size of the kernels they are in.
    """

    single: bool = field(default=False, init=False, repr=False)
    means: bool = field(default=True, init=False, repr=False)
    least_sparsity: float = field(default=0.0, init=False, repr=False)

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per kernel, (outputs, inputs), in float32 at least."""
        sizes = 1, 1, self.weights_per_unit(scores.shape)
        return self.pooled(scores.reshape(*scores.shape[:2], -1), sizes).view(scores.shape[:2])

    def tiles(self, shape: torch.Size) -> Tiles:
        """Return that tiles are kernels."""
        kernel = self.weights_per_unit(shape)
        return Tiles((shape[:1].numel(), shape[1:2].numel(), kernel), (1, 1, kernel))

    def pooled(self, scores: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return the means of the kernels of a piece."""
        kernels = scores.reshape(-1, sizes[2])
        wide = torch.promote_types(scores.dtype, torch.float32)
        return kernels[:, 0].to(wide) if sizes[2] == 1 else mean_of_rows(kernels)

    def protected(self, units: Tensor) -> None:
        """Protect nothing."""
        return

    def weights_per_unit(self, shape: torch.Size) -> int:
        """Return how many weights a kernel holds."""
        return shape[2:].numel()

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return every kernel's answer for each of its weights."""
        return keep[..., None].expand(*keep.shape, self.weights_per_unit(shape)).reshape(shape)
