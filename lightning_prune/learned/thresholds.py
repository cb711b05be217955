"""Learned thresholds: logits of one value a weight tensor, which keep to a schedule's budget together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.gate import Threshold
from lightning_prune.learned.logits import Logits, open_gates

_CLEAR = 1e-4
"""How far a weight that is kept lies above its threshold at least, in logarithms: enough for float32."""
_ZERO = -1e3
"""Below any ln(|w| / t) of a weight that is not 0."""


class Thresholds(Logits):
    """The logarithms of thresholds, one for each weight tensor.

    Args:
        budget: whether a schedule says how many weights lie below them.
        gates: one for each weight tensor.
        of: the other arguments of `Logits`.
    """

    gates: Sequence[Threshold]
    of_weights = True

    def __init__(self, budget: bool, gates: Sequence[Threshold], *of: Any) -> None:
        super().__init__(gates, *of)
        self._budget = budget

    def masks(self, number: int, reader: int, batch: int, weight: Tensor | None = None) -> Tensor:
        """Return the mask of a weight, or of a copy with values of its own. Nothing is drawn."""
        return self._gate(number, weight).sample(self.values[number], self.values[number], self.progress)

    def settled(self, number: int, weight: Tensor | None = None) -> Tensor:
        """Return by what weights that are kept, or a copy's with values of its own, are multiplied in evaluation."""
        return open_gates(self._gate(number, weight), self.values[number].detach())

    def _gate(self, number: int, weight: Tensor | None) -> Threshold:
        return self.gates[number] if weight is None else self.gates[number].on(weight)

    def above(self, threshold: float) -> list[Tensor]:
        """Return which weights are above their thresholds; of a tensor that has none the largest."""
        every: list[Tensor] = []
        for gate, logits in zip(self.gates, self.values, strict=True):
            above = gate.settled(logits.detach()).cpu() > 0
            if not bool(above.any()):
                above[int(gate.worth(logits).argmax())] = True
            every.append(above)
        return every

    def final(self, keeps: Sequence[Tensor]) -> list[Tensor]:
        """Return the probabilities of the end: the weights have the thresholds in them, and are there or not."""
        return [keep.float().cpu() for keep in keeps]

    def weights_are(self, weights: Sequence[Tensor]) -> None:
        """Have thresholds act on the weights that there are now."""
        self.gates = [gate.on(weight) for gate, weight in zip(self.gates, weights, strict=True)]

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
        keeps: which of them are kept: those of the largest worth over all tensors, and what a tensor keeps at least.
    """
    values, keep = torch.cat([w.flatten() for w in worth]), torch.cat([k.flatten() for k in keeps])
    living = values > _ZERO
    kept, gone = values[keep & living], values[~keep & living]
    if not len(kept):
        return 0.0
    if len(gone) and bool((ranked := kept >= gone.max()).any()):
        kept = kept[ranked]
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
