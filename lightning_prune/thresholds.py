"""Learned thresholds: logits of one value a weight tensor, which keep to a schedule's budget together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.logits import Logits
from lightning_prune.protocols import Threshold

_CLEAR = 1e-4
"""How far a weight that is kept lies above its threshold at least, in logarithms: enough for float32."""
_GONE = -80.0
"""The logarithm of a threshold below every weight."""


class Thresholds(Logits):
    """The logarithms of thresholds, one for each weight tensor.

    Args:
        budget: whether a schedule says how many weights lie below them.
        gates: one for each weight tensor.
        of: the other arguments of `Logits`.
    """

    gates: Sequence[Threshold]

    def __init__(self, budget: bool, gates: Sequence[Threshold], *of: Any) -> None:
        super().__init__(gates, *of)
        self._budget = budget

    def worth(self) -> list[Tensor]:
        """Return by what a schedule chooses the weights that stay: how far they are above their threshold."""
        return [gate.worth(logits) for gate, logits in zip(self.gates, self.values, strict=True)]

    @torch.no_grad()
    def follow(self, worth: Sequence[Tensor], keeps: Sequence[Tensor]) -> None:
        """Move all thresholds by one factor, so that they lie between what a schedule has kept and what not."""
        shift = common_shift(worth, keeps)
        for logits in self.values:
            logits += shift

    def thresholds(self, between: Sequence[float]) -> Sequence[float]:
        """Return the thresholds on the magnitudes in force."""
        return [gate.threshold(logits) for gate, logits in zip(self.gates, self.values, strict=True)]

    @torch.no_grad()
    def finish(self) -> None:
        """Fall below every weight that is left: the weights have them in, and train on without."""
        for logits in self.values:
            logits.fill_(_GONE)

    def advance(self, numbers: Sequence[int]) -> None:
        """Step the thresholds of tensors along their gradients, or the part of them that keeps to the budget."""
        grads = [grad for n in numbers if (grad := self.values[n].grad) is not None]
        if self._budget and grads:
            crossing = [self.gates[n].crossing(self.values[n]) for n in numbers]
            for n, grad in zip(numbers, balanced(grads, crossing), strict=True):
                self.values[n].grad = grad
        super().advance(numbers)


def common_shift(worth: Sequence[Tensor], keeps: Sequence[Tensor]) -> float:
    """Return by how much the logarithms of all thresholds have to move to lie between those kept and those not.

    Args:
        worth: ln(|w| / t) of the weights of each tensor.
        keeps: which of them are kept: those of the largest worth over all tensors.
    """
    values, keep = torch.cat([w.flatten() for w in worth]), torch.cat([k.flatten() for k in keeps])
    kept, gone = values[keep & values.isfinite()], values[~keep & values.isfinite()]
    if not len(kept):
        return 0.0
    least = float(kept.min())
    between = (least + float(gone.max())) / 2 if len(gone) else least - 1.0
    return min(between, least - _CLEAR)


def balanced(grads: Sequence[Tensor], crossing: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of the logarithms of thresholds along which the number of weights below them stays.

    Where one threshold rises, all fall by the factor that makes up for it; the gradient is that of both together.

    Args:
        grads: of one tensor each, (1,).
        crossing: how many weights each threshold crosses while its logarithm grows by 1.
    """
    total = torch.stack(list(crossing)).sum()
    if not float(total):
        return list(grads)
    common = torch.cat(list(grads)).sum() / total
    return [grad - common * number for grad, number in zip(grads, crossing, strict=True)]
