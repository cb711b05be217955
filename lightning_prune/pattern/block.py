"""Rectangles of a weight matrix as units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from lightning_prune.pattern.protocol import Tiles


@dataclass(frozen=True)
class Block:
    """Blocks of `height` outputs by `width` inputs.

    A weight is seen as a matrix of outputs by all the rest, after dimensions of size 1 are dropped: (out, in) for a
    linear layer, (out, in * k * k) for a convolution. Blocks at the end may be cut off; they then hold fewer weights,
    and count as such. Source: TensorFlow `model_pruning`, `block_height`, `block_width`, `block_pooling_function`.

    Args:
        height: outputs per block; -1 takes all.
        width: inputs per block; -1 takes all.
        pool: a block's score is the mean ("avg", of the weights that are there) or the largest ("max") of its scores.

    Raises:
        ValueError: a size that is neither positive nor -1, or an unknown pooling.
    """

    height: int
    width: int
    pool: Literal["avg", "max"] = "avg"

    single: bool = field(default=False, init=False, repr=False)
    least_sparsity: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, size in (("height", self.height), ("width", self.width)):
            if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
                raise ValueError(f"{name}={size!r} must be a positive int, or -1 for the full dimension")
        if self.pool not in ("avg", "max"):
            raise ValueError(f"pool={self.pool!r} must be 'avg' or 'max'")

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per block, (blocks of outputs, blocks of inputs), in float32 at least."""
        return self.pooled(scores.reshape(_matrix(scores.shape)), self._sizes(scores.shape))

    def tiles(self, shape: torch.Size) -> Tiles:
        """Return that tiles are blocks."""
        return Tiles(_matrix(shape), self._sizes(shape))

    def pooled(self, scores: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return one score per block of a matrix."""
        matrix = scores if scores.dtype == torch.float64 else scores.float()
        pooled = functional.avg_pool2d if self.pool == "avg" else functional.max_pool2d
        # Windows that reach over the edge take the mean of what is there.
        return pooled(matrix[None, None], sizes, ceil_mode=True)[0, 0]

    def protected(self, units: Tensor) -> None:
        """Protect nothing."""
        return

    def weights_per_unit(self, shape: torch.Size) -> int | Tensor:
        """Return height * width, or a tensor where blocks at the end are cut off."""
        (rows, columns), (height, width) = _matrix(shape), self._sizes(shape)
        if rows % height == 0 and columns % width == 0:
            return height * width
        return _lengths(rows, height)[:, None] * _lengths(columns, width)[None, :]

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return every block's answer for each of its weights."""
        (rows, columns), (height, width) = _matrix(shape), self._sizes(shape)
        mask = keep.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :columns]
        return mask.reshape(shape)

    def _sizes(self, shape: torch.Size) -> tuple[int, int]:
        rows, columns = _matrix(shape)
        height = rows if self.height == -1 else min(self.height, rows)
        return height, columns if self.width == -1 else min(self.width, columns)


def _matrix(shape: torch.Size) -> tuple[int, int]:
    long = [n for n in shape if n != 1] or [1]
    return long[0], torch.Size(long[1:]).numel()


def _lengths(total: int, size: int) -> Tensor:
    return torch.tensor([min(size, total - start) for start in range(0, total, size)])
