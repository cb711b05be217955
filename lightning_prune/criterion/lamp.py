"""Magnitude beside all larger ones of its layer: LAMP, a layer-adaptive score that ranks across layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import wide


@dataclass(frozen=True)
class LAMP:
    """Score a weight by w^2 / (sum of the squares of its layer's weights that are not smaller, itself among them).

    Each layer's largest scores 1, so that no layer goes as a whole, and global ranking gives every layer a sparsity of
    its own. Of equal magnitudes the first in position counts as the larger. Sums are in float64. Source: Lee et al.
    2021 (arXiv 2010.07611), eq. 3.
    """

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the scores, in [0, 1]; 0 throughout where all weights are zero."""
        squares = wide(weight).flatten().square()
        order = squares.flip(0).argsort(stable=True)  # ascending, of equal ones the later first
        ordered = squares.flip(0)[order]
        wider = ordered.cpu().double() if ordered.device.type == "mps" else ordered.double()
        left = wider.flip(0).cumsum(0).flip(0).to(squares.device, squares.dtype)
        shares = torch.where(left > 0, ordered / left, 0.0)
        scores = torch.empty_like(squares)
        scores[order] = shares
        return scores.flip(0).view(weight.shape)
