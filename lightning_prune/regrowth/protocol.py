"""What a regrowth must answer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Regrowth(Protocol):
    """How many of its weights a layer exchanges at an update, and which of the pruned ones return.

    At an update the schedule takes what it asks for. Then each layer drops that share of what is left to it, the
    smallest by |w|, and as many of all that is pruned then return, so that the number stays what it was.
    """

    @property
    def window(self) -> int:
        """Over how many optimizer steps before an update gradients are summed up."""
        ...

    def resolve(self, total_steps: int | None) -> Regrowth:
        """Return this regrowth in whole steps. Raises ValueError if shares are used and `total_steps` is None."""
        ...

    def share(self, step: int) -> float:
        """Return the share of its weights that each layer exchanges at the update at `step`, in [0, 1)."""
        ...

    def __call__(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return what each entry would be worth, finite floats of at least 0; entries at 0 do not return.

        Each entry counts by itself: of a weight that is taken apart over ranks the piece here is handed over.

        Args:
            weight: as it is in the model.
            gradient: the sum of its gradients over the window, pruned entries too: complete, reduced over ranks, not
                clipped, without the regularizer's part. In float32 at least.
        """
        ...
