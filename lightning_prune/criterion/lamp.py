"""Magnitude beside all larger ones of its layer: LAMP, a layer-adaptive score that ranks across layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import doubled, wide

_CHUNK = 1 << 20
"""Entries whose sums are held in float64 at a time."""


@dataclass(frozen=True)
class LAMP:
    """Score a weight by w^2 / (sum of the squares of its layer's weights that are not smaller, itself among them).

    Each layer's largest scores 1, so that no layer goes as a whole, and global ranking gives every layer a sparsity of
    its own. Of equal magnitudes the first in position counts as the larger. Sums are in float64. Source: Lee et al.
    2021 (arXiv 2010.07611), eq. 3.
    """

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the scores, in [0, 1]; 0 throughout where all weights are zero.

        Of one weight at a time, up to 24 bytes an entry are taken meanwhile: it is sorted.
        """
        squares = wide(weight).flatten().square().flip(0)
        ordered, order = squares.sort(stable=True)  # ascending, of equal ones the later first
        del squares
        order.neg_().add_(len(order) - 1)
        left = doubled(ordered.new_zeros(()))
        for end in range(len(ordered), 0, -_CHUNK):  # the largest first, a part at a time
            part = ordered[max(0, end - _CHUNK) : end]
            sums = doubled(part).flip(0).cumsum(0).flip(0).add_(left)
            left = sums[0]
            sums = sums.to(part)
            part.div_(sums).masked_fill_(sums == 0, 0.0)
        return torch.empty_like(ordered).scatter_(0, order, ordered).view(weight.shape)
