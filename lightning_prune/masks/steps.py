"""What an optimizer's steps do to pruned weights, and when these have to be set to zero again after one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from lightning_prune.masks.masked_weight import MaskedWeight, alive, apply_all, zero_gradients

_LEAVING_ZEROS = (
    *("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"),
    *("Adagrad", "Adadelta", "Adafactor", "ASGD", "Rprop"),
)
_LOOKS = (1, 4, 16)
_EVERY = 64
"""Which steps after an update are looked at: these, and every so many."""


def leaves_zeros(optimizer: Any) -> bool:
    """Return whether an optimizer is one whose step leaves an entry at zero that has no gradient and no moments.

    Those of torch that treat each entry by itself do, unless a group divides by a second moment without an epsilon. Of
    a subclass nobody knows.
    """
    known = {getattr(torch.optim, name, None) for name in _LEAVING_ZEROS} - {None}
    return type(optimizer) in known and all(group.get("eps", 1.0) != 0 for group in optimizer.param_groups)


class Steps:
    """The masked weights that one optimizer steps. `before` and `after` stand around each of its steps.

    Most optimizers leave zeros alone: an entry that is zero, and of which gradient and moments are, stays what it is.
    Setting it to zero again costs as much as reading and writing the weight. So an optimizer that is known to leave
    zeros alone is trusted, but looked at: after the first step behind whatever else has written to a weight, an update
    say, or has given the optimizer another memory, after the 4th, the 16th, and every 64th. One that is caught is not
    trusted any more. Where values lie on an accelerator only the first step is looked at, behind an update that waits
    for the device as well; at the others they are set to zero without asking, since an answer would have to be waited
    for. What is not counted as a write of the step itself makes its weights be set to zero behind it.

    Args:
        optimizer: the one.
        parameters: the ids of what it steps.
        weights: the masked ones among these.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[int], weights: Sequence[MaskedWeight]) -> None:
        self.optimizer = optimizer
        self.parameters = parameters
        self.weights = weights
        self.trusted = leaves_zeros(optimizer)
        self._before: list[tuple[int, int]] | None = None
        self._after: list[tuple[int, int]] = []
        self._moves: list[tuple[int, bool]] = []
        self._since = 0
        self._memory: Any = None

    def before(self) -> None:
        """Take the gradients of pruned entries out, once they are complete."""
        zero_gradients(self.weights)
        self._before = None
        if self.trusted:
            states = [weight.state for weight in self.weights]
            if all(w.seen == state or not w.pruned for w, state in zip(self.weights, states, strict=True)):
                self._before = states

    def after(self) -> None:
        """Set pruned entries to zero, where the step may have written to them."""
        if self._before is None:
            apply_all(self.weights)
            self._since = 0
        else:
            states = [weight.state for weight in self.weights]
            moves = [(b[0] - a[0], a[1] == b[1]) for a, b in zip(self._before, states, strict=True)]
            memory = getattr(self.optimizer, "state", None)
            if moves != self._moves or self._before != self._after or memory is not self._memory:
                self._since = 0
            self._memory = memory
            self._moves, self._since = moves, self._since + 1
            for weight, state in zip(self.weights, states, strict=True):
                weight.seen = state
            if self._since in _LOOKS or self._since % _EVERY == 0:
                self._look()
        self._after = [weight.state for weight in self.weights]
        self._before = None

    def _look(self) -> None:
        if self._since > 1 and any(weight.mask.device.type != "cpu" for weight in self.weights):
            apply_all(self.weights)
            return
        found = alive(self.weights)
        if found:
            self.trusted = False
            apply_all(found)
