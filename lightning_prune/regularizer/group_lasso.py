"""The sum of the norms of whole outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune import given


@dataclass(frozen=True)
class GroupLasso:
    """Add strength * sum over outputs of sqrt(n) ||w||_2, with w the n weights that lead to one output.

    Its gradient is strength * sqrt(n) * w / ||w||_2, and zero at zero: it draws whole outputs to zero, for patterns
    that remove those. Source: Yuan & Lin 2006 (JRSS B 68); for convolutions Wen et al. 2016, arXiv 1608.03665.

    Args:
        strength: the factor; 0 adds nothing.

    Raises:
        ValueError: a strength below 0, or none.
    """

    strength: float

    needs_layout: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.number("strength", self.strength, least=0)

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return the penalty of one weight, whose first dimension is that of the outputs, in float32 at least."""
        outputs = weight.reshape(weight.shape[:1].numel(), -1)
        wide = torch.promote_types(weight.dtype, torch.float32)
        norms = torch.linalg.vector_norm(outputs, dim=1, dtype=wide)
        return self.strength * math.sqrt(outputs.shape[1]) * norms.sum()
