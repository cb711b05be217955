"""What a selection must answer, and the scored units that it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Units:
    """The units of one weight, to be ranked.

    Attributes:
        name: dotted name of the weight, for errors.
        values: scores in the units' shape; or, where `absolute`, the weight itself, whose score is its absolute value.
        absolute: rank |values|, so that nothing has to be materialised.
        alive: bool in the units' shape: units not pruned before; None if all are. The others stay pruned.
        protected: bool in the units' shape: units that go only after all others; None if there are none.
        weights: weights per unit, one int for all or a tensor in the units' shape.
        threshold: the weight's threshold so far.
    """

    name: str
    values: Tensor
    absolute: bool = False
    alive: Tensor | None = None
    protected: Tensor | None = None
    weights: int | Tensor = 1
    threshold: float = 0.0

    def scores(self) -> Tensor:
        """Return the scores as a tensor. Raises ValueError that names the weight if one is not finite."""
        if not bool(torch.isfinite(self.values).all()):
            raise non_finite(self.name)
        return self.values.abs() if self.absolute else self.values


def non_finite(name: str) -> ValueError:
    """Return the error for a score that is NaN or infinite."""
    return ValueError(
        f"a pruning score of '{name}' is not finite, so its weights cannot be ranked; "
        "look for a diverged loss or an overflow before this step"
    )


class Selection(Protocol):
    """From scores and counts to masks."""

    @property
    def exact(self) -> bool:
        """Whether exactly `drop` weights go, as closely as whole units allow, protected units last."""
        ...

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return for each member which units to keep (bool, the units' shape), and the new threshold."""
        ...
