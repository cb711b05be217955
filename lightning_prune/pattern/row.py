"""Whole outputs as units: rows of a weight, filters of a convolution."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune.pattern.protocol import Tiles
from lightning_prune.shards import mean_of_rows


@dataclass(frozen=True)
class Row:
    """All weights that lead to one output: a row of a linear weight, a filter of a convolution.

    A row's score is the mean of its weights' scores. Each weight's best row goes only after all others of the pool.
    Biases and the next layer stay as they are: `Channel` takes those along. In a recurrent layer, whose weights hold
    the gates one below the other, a row is one gate of one hidden unit.
    """

    single: bool = field(default=False, init=False, repr=False)
    spares: bool = field(default=True, init=False, repr=False)
    means: bool = field(default=True, init=False, repr=False)
    least_sparsity: float = field(default=0.0, init=False, repr=False)

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per output, in float32 at least."""
        return mean_of_rows(scores.reshape(scores.shape[:1].numel(), -1))

    def tiles(self, shape: torch.Size) -> Tiles:
        """Return that tiles are rows."""
        view = shape[:1].numel(), shape[1:].numel()
        return Tiles(view, (1, view[1]))

    def pooled(self, scores: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return the means of the rows of a piece."""
        return mean_of_rows(scores)

    def protected(self, units: Tensor) -> Tensor:
        """Return the best row, of equal ones the first."""
        return torch.arange(units.numel(), device=units.device) == units.argmax()

    def weights_per_unit(self, shape: torch.Size) -> int:
        """Return how many weights lead to one output."""
        return shape[1:].numel()

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return every row's answer for each of its weights."""
        return keep.repeat_interleave(self.weights_per_unit(shape)).reshape(shape)
