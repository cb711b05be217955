"""The absolute value of the weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Magnitude:
    """Score a weight by |w|. Source: Han et al. 2015, arXiv 1506.02626."""

    absolute: bool = field(default=True, init=False, repr=False)
    """The score is |weight|, so that a selection may read the weight itself and nothing is materialised."""
    of_entries: ClassVar[bool] = True

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return |weight|."""
        return weight.abs()
