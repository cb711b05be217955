"""Hooks of learned masks on a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Masking = Callable[[int, object, int], Tensor]
"""Number of a group, who asks, size of the batch -> mask (batch or 1, units)."""


class Attachment:
    """A hook on a layer that copies of the model share and pickles leave out."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        """Return itself: a copy of the model, as averages of weights keep one, computes with the same masks."""
        return self

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Leave nothing in a pickle but a hook that does nothing."""
        return Nothing, ()


class Nothing:
    """A hook that does nothing."""

    def __call__(self, *_: Any) -> None:
        """Leave all as it is."""
