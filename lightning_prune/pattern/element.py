"""Single weights as units."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Element:
    """Every weight is a unit of its own."""

    single: bool = field(default=True, init=False, repr=False)
    least_sparsity: float = field(default=0.0, init=False, repr=False)

    def units(self, scores: Tensor) -> Tensor:
        """Return the scores as they are."""
        return scores

    def protected(self, units: Tensor) -> None:
        """Protect nothing."""
        return

    def weights_per_unit(self, shape: torch.Size) -> int:
        """Return 1."""
        return 1

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return the mask as it is."""
        return keep
