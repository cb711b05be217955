"""At most N of every M consecutive weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.pattern.protocol import Tiles


@dataclass(frozen=True)
class NofM:
    """Keep at most the n best of every m consecutive weights along the input dimension.

    The m - n worst of each group go first, in the order of the schedule; the pattern holds everywhere from a sparsity
    of 1 - n/m on, and a higher sparsity goes on within it. A last group that is cut off keeps its n best as well.
    `NofM(2, 4)` is what sparse tensor cores multiply. Source: TensorFlow `model_pruning`, `intra_block_sparsity`;
    Mishra et al. 2021, arXiv 2104.08378.

    Args:
        n: weights kept per group, at least 1.
        m: weights per group, more than n.

    Raises:
        ValueError: not 1 <= n < m.
    """

    n: int
    m: int

    single: bool = field(default=False, init=False, repr=False)
    entries: bool = field(default=True, init=False, repr=False)
    """Units are entries, and each output's are protected apart: a weight may be looked at in parts, in place."""

    def __post_init__(self) -> None:
        given.whole("n", self.n)
        given.whole("m", self.m)
        if not 1 <= self.n < self.m:
            raise ValueError(f"NofM(n={self.n}, m={self.m}) keeps n of m weights and needs 1 <= n < m")

    @property
    def least_sparsity(self) -> float:
        """Return 1 - n/m, from where on the pattern holds."""
        return 1.0 - self.n / self.m

    def units(self, scores: Tensor) -> Tensor:
        """Return the scores as they are."""
        return scores

    def tiles(self, shape: torch.Size) -> Tiles:
        """Return that tiles are groups of m."""
        view = shape[:1].numel(), shape[1:2].numel(), shape[2:].numel()
        return Tiles(view, (1, min(self.m, view[1]), 1))

    def pooled(self, scores: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return the scores as they are."""
        return scores

    def protected(self, units: Tensor) -> Tensor:
        """Return the n best of each group; of equal scores the earlier one."""
        matrix = units if units.dim() > 1 else units.reshape(-1, 1)  # without an input dimension: groups of one
        rows = matrix.movedim(1, -1)
        size = rows.shape[-1]
        groups = -(-size // self.m)
        worst = torch.finfo(rows.dtype).min
        padded = rows.new_full((*rows.shape[:-1], groups * self.m), worst)
        padded[..., :size] = rows
        # A stable descending sort leaves the earlier of two equal scores in front.
        order = padded.unflatten(-1, (groups, self.m)).argsort(dim=-1, descending=True, stable=True)
        best = torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order[..., : self.n], True)
        return best.flatten(-2)[..., :size].movedim(-1, 1).reshape(units.shape)

    def weights_per_unit(self, shape: torch.Size) -> int:
        """Return 1."""
        return 1

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return the mask as it is."""
        return keep
