"""What a regularizer of learned masks must answer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class MaskRegularizer(Protocol):
    """What is added to the loss for the probabilities of learned masks. Its gradient is taken by autograd."""

    @property
    def needs_schedule(self) -> bool:
        """Whether it means something only where a schedule asks for a sparsity."""
        ...

    def __call__(self, p: Tensor, expected: Tensor, asked: float) -> Tensor:
        """Return a scalar.

        Args:
            p: the probabilities of all units of all groups to be kept.
            expected: the expected share of zeros among the weights, differentiable.
            asked: the share that the schedule asks for now; 0 without one.
        """
        ...
