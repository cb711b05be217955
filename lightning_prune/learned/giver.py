"""Who gives layers their masks: as plain Python does, and in compiled code as operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_prune.learned.logits import Logits
from lightning_prune.learned.operations import Named

_exporting: Any = getattr(torch.compiler, "is_exporting", lambda: False)  # not in every version


class Learned(Protocol):
    """What is known of masks while they are on a model; see `Learning`."""

    logits: Logits
    waits: bool

    def forget_earlier(self, number: int) -> None: ...

    def settled(self, number: int, weight: Tensor | None = None) -> Tensor: ...


class Giver:
    """Gives masks: random ones for a batch in training, hard ones in evaluation.

    Args:
        learned: what is known of them.
        sizes: how many units each group has.
    """

    def __init__(self, learned: Learned, sizes: Sequence[int]) -> None:
        self._learned = learned
        self._sizes = sizes
        self._named = Named(self)

    def __call__(self, number: int, reader: int, batch: int, weight: Tensor | None = None) -> Tensor:
        """Return the masks of a group for a reader; see `hooks.Masking`.

        Raises:
            RuntimeError: the model is being exported; the draws of now, or none, would be in the program for good.
        """
        if _exporting():
            raise RuntimeError("learned masks are not in the weights yet: call strip() before you export the model")
        learned, compiled = self._learned, torch.compiler.is_dynamo_compiling()
        logits = learned.logits.values[number]
        if not batch:
            if compiled:
                return self._named.settled(number, weight, self._sizes[number], logits)[None]
            return learned.settled(number, weight)[None]
        if learned.waits:
            return torch.ones(1, self._sizes[number], device=logits.device)
        if compiled and not learned.logits.of_weights:  # learned thresholds draw nothing and are traced
            return self._named.masks(number, reader, batch, logits)
        learned.forget_earlier(number)
        return learned.logits.masks(number, reader, batch, weight)

    # What operations ask

    @property
    def progress(self) -> float:
        """The share of the window that is over."""
        return self._learned.logits.progress

    def draw(self, number: int, reader: int, batch: int) -> Tensor:
        """Return a draw from U(0, 1), (batch, units)."""
        self._learned.forget_earlier(number)
        return self._learned.logits.draw(number, reader, batch)

    def sample(self, number: int, logits: Tensor, uniform: Tensor, progress: float) -> Tensor:
        """Return the masks of a draw."""
        return self._learned.logits.gates[number].sample(logits, uniform, progress)

    def settled(self, number: int, weight: Tensor | None) -> Tensor:
        """Return by what units are multiplied in evaluation."""
        return self._learned.settled(number, weight)
