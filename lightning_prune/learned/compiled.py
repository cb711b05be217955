"""Hooks beside `torch.compile`: compiled code does not look at them again."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.learned.weight_hooks import Handle
from lightning_prune.observing.compiled import forget_compiled


class Hooks:
    """Hooks on a model, compiled or not. Code that was compiled before they were put on, or taken off, is made anew.

    It would compute without them, or with them. All code that torch.compile has made in this process is: whether it
    has a model in it cannot be seen on the model, which `torch.compile(model)` leaves as it is.
    """

    def __init__(self) -> None:
        self._handles: list[Handle] = []

    def put(self, handles: Sequence[Handle]) -> None:
        """Take note of some that have just been put on."""
        self._handles += handles
        forget_compiled()

    def remove(self) -> None:
        """Take them off."""
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            forget_compiled()
