"""What a regularizer must answer, and where and when it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Moment:
    """Where and when a regularizer is asked.

    Attributes:
        role: what the tensor is: a weight, the scales of a norm, or a bias; the last two with coupled patterns alone.
        progress: through the schedule's window at the latest update, from 0 to 1.
        going: bool in the tensor's shape, the entries that would go if the final sparsity were asked for at the latest
            update; None before the first.
    """

    role: Literal["weight", "norm", "bias"] = "weight"
    progress: float = 0.0
    going: Tensor | None = None


class Regularizer(Protocol):
    """What is added to the loss for one pruned weight. Its gradient is taken by autograd."""

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return a scalar.

        Of a weight that is taken apart over ranks it gets the whole, collected for the moment on every rank; one that
        says `of_entries = True` is a sum over entries, and gets the piece that lies here.
        """
        ...


@runtime_checkable
class SitedRegularizer(Protocol):
    """A regularizer that differs by role and time: `at(moment)` gives the one to call; also for norms and biases."""

    def at(self, moment: Moment) -> Regularizer: ...
