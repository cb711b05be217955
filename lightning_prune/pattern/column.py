"""Whole inputs as units: columns of a weight."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune.pattern.protocol import Tiles
from lightning_prune.shards import summed


@dataclass(frozen=True)
class Column:
    """All weights that one input goes through: a column of a linear weight, an input channel of a convolution.

    In a grouped convolution a column is the input of that place in every group; a depthwise one, and a weight of one
    dimension, is a single column. A column's score is the mean of its weights' scores. Each weight's best column goes
    only after all others of the pool.
    """

    single: bool = field(default=False, init=False, repr=False)
    spares: bool = field(default=True, init=False, repr=False)
    means: bool = field(default=True, init=False, repr=False)
    least_sparsity: float = field(default=0.0, init=False, repr=False)

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per input, in float32 at least."""
        outputs, inputs, kernel = _by_input(scores.shape)
        return self.pooled(scores.reshape(outputs, inputs, kernel), (outputs, 1, kernel))

    def tiles(self, shape: torch.Size) -> Tiles:
        """Return that tiles are columns."""
        outputs, inputs, kernel = _by_input(shape)
        return Tiles((outputs, inputs, kernel), (outputs, 1, kernel))

    def pooled(self, scores: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return the means of the columns of a piece."""
        if scores.device.type != "cpu":
            return scores.mean((0, 2), dtype=torch.promote_types(scores.dtype, torch.float32))
        return summed(summed(scores, 0), 1) / (sizes[0] * sizes[2])

    def protected(self, units: Tensor) -> Tensor:
        """Return the best column, of equal ones the first."""
        return torch.arange(units.numel(), device=units.device) == units.argmax()

    def weights_per_unit(self, shape: torch.Size) -> int:
        """Return how many weights one input goes through."""
        outputs, _, kernel = _by_input(shape)
        return outputs * kernel

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return every column's answer for each of its weights."""
        return keep[None, :, None].expand(_by_input(shape)).reshape(shape)


def _by_input(shape: torch.Size) -> tuple[int, int, int]:
    """Return outputs, inputs, weights per kernel."""
    return shape[:1].numel(), shape[1:2].numel(), shape[2:].numel()
