"""Whole kernels of a convolution as units."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kernel:
    """All weights between one input channel and one output channel: a k x k slice of a convolution's weight.

    A kernel's score is the mean of its weights' scores. In a linear weight and in a 1 x 1 convolution a kernel is a
    single weight. The budget counts weights, whatever the size of the kernels they are in.
    """

    single: bool = field(default=False, init=False, repr=False)
    least_sparsity: float = field(default=0.0, init=False, repr=False)

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per kernel, (outputs, inputs), in float32 at least."""
        kernels = scores.reshape(*scores.shape[:2], -1)
        wide = torch.promote_types(scores.dtype, torch.float32)
        return kernels[..., 0].to(wide) if kernels.shape[-1] == 1 else kernels.mean(-1, dtype=wide)

    def protected(self, units: Tensor) -> None:
        """Protect nothing."""
        return

    def weights_per_unit(self, shape: torch.Size) -> int:
        """Return how many weights a kernel holds."""
        return shape[2:].numel()

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return every kernel's answer for each of its weights."""
        return keep[..., None].expand(*keep.shape, self.weights_per_unit(shape)).reshape(shape)
