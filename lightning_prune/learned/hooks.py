"""What the hooks of learned masks have in common: copies of a model share them, pickles leave them out."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Masking(Protocol):
    """Gives masks."""

    def __call__(self, number: int, reader: int, batch: int, weight: Tensor | None = None) -> Tensor:
        """Return the mask of a group, (batch or 1, units).

        Args:
            number: of the group.
            reader: the number of who asks.
            batch: its size; 0 in evaluation.
            weight: where the mask is put on weights, the one at hand: a copy of the model has its own.
        """
        ...


class SharedHook:
    """A hook on a layer that copies of the model share and pickles leave out."""

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedHook:
        """Return itself: a copy of the model, as averages of weights keep one, computes with the same masks."""
        return self

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Leave nothing in a pickle but a hook that does nothing."""
        return NoHook, ()


class NoHook:
    """A hook that does nothing."""

    def __call__(self, *_: Any) -> None:
        """Leave all as it is."""
