"""What a criterion must answer, and where and when it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Site:
    """Where and when a criterion is asked.

    Attributes:
        name: dotted name of the weight.
        step: the update step, in optimizer steps.
        memory: tensors that a criterion keeps from one update to the next for this weight; saved with the pruner.
        sparsity: the share that the schedule asks for at this update.
        norm: the scales of the norms behind the weight, one per output, where the pattern knows them.
    """

    name: str
    step: int
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    sparsity: float = 0.0
    norm: Tensor | None = None


class Criterion(Protocol):
    """What a weight is worth."""

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return finite scores of the weight's shape; a higher score is kept longer. Must not change its inputs.

        The output dimension comes first: a transposed convolution's weight is handed over turned. Of a stack of experts
        the outputs come one below the other; a criterion of whole outputs gets each expert by itself. Where no layer
        says what the dimensions are, the weight comes as it is, but for criteria that say `needs_layout = True` or
        `of_outputs = True`: there it is refused before.
        """
        ...


@runtime_checkable
class SitedCriterion(Protocol):
    """A criterion that differs by place and time, or that remembers: `at(site)` gives the one to call there."""

    def at(self, site: Site) -> Criterion: ...
