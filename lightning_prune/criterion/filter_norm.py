"""The norm of all weights that lead to one output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import of_each_weight


@dataclass(frozen=True)
class FilterNorm:
    """Score every weight of a filter by the filter's norm: sum |w| with p = 1, the Euclidean norm with p = 2.

    A filter is what leads to one output: a row of a linear weight. Larger filters have larger norms, so layers compare
    only where each is ranked by itself (`Uniform`, `ERK`). Source: Li et al. 2017, arXiv 1608.08710 (p = 1).

    Args:
        p: 1 or 2.
    """

    p: int = 1

    of_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.p not in (1, 2):
            raise ValueError(f"p={self.p!r} must be 1 or 2")

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return every filter's norm for each of its weights, in float32 at least."""
        filters = weight.reshape(weight.shape[:1].numel(), -1)
        wide = torch.promote_types(weight.dtype, torch.float32)
        norms = torch.linalg.vector_norm(filters, self.p, dim=1, dtype=wide)
        return of_each_weight(norms, weight)
