"""Whole inputs as units: columns of a weight."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Column:
    """All weights that one input goes through: a column of a linear weight, an input channel of a convolution.

    In a grouped convolution a column is the input of that place in every group; a depthwise one, and a weight of one
    dimension, is a single column. A column's score is the mean of its weights' scores. Each weight's best column goes
    only after all others of the pool.
    """

    single: bool = field(default=False, init=False, repr=False)
    spares: bool = field(default=True, init=False, repr=False)
    least_sparsity: float = field(default=0.0, init=False, repr=False)

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per input, in float32 at least."""
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.reshape(_by_input(scores.shape)).mean((0, 2), dtype=wide)

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
