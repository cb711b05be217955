"""What a criterion must answer, and where and when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_prune.ranking import by_rows, where_float64_is


def itself(numbers: Tensor) -> Tensor:
    """Return what is handed over: what lies here is the whole."""
    return numbers


@dataclass(frozen=True)
class Site:
    """Where and when a criterion is asked.

    Attributes:
        name: dotted name of the weight.
        step: the update step, in optimizer steps.
        memory: tensors that a criterion keeps from one update to the next for this weight; saved with the pruner.
        sparsity: the share that the schedule asks for at this update.
        norm: the scales of the norms behind the weight, one per output, where the pattern knows them.
        total: from a sum over the entries at hand, 0-dim, to that over the whole weight.
        place: from flat positions in what is handed over to those in the whole weight, output dimension first.
    """

    name: str
    step: int
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    sparsity: float = 0.0
    norm: Tensor | None = None
    total: Callable[[Tensor], Tensor] = itself
    place: Callable[[Tensor], Tensor] = itself


class Criterion(Protocol):
    """What a weight is worth."""

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return finite scores of the weight's shape; a higher score is kept longer. Must not change its inputs.

        The output dimension comes first: a transposed convolution's weight is handed over turned. Of a stack of experts
        the outputs come one below the other; a criterion of whole outputs gets each expert by itself. Where no layer
        says what the dimensions are, the weight comes as it is, but for criteria that say `needs_layout = True` or
        `of_outputs = True`: there it is refused before.

        Of a weight that is taken apart over ranks a criterion gets the whole, collected for the moment on every rank;
        one that says `of_entries = True` gets the piece that lies here. A score may then depend on its own entry
        alone, and on what `Site.total` and `Site.place` say of the whole.
        """
        ...


@runtime_checkable
class SitedCriterion(Protocol):
    """A criterion that differs by place and time, or that remembers: `at(site)` gives the one to call there."""

    def at(self, site: Site) -> Criterion: ...


@runtime_checkable
class RememberingCriterion(Protocol):
    """A criterion that moves its memory on apart from its scores, so that nothing of it is held until masks are known.

    Calling it does both. One without these is called, and what it has put into its memory is taken back should the
    update fail.
    """

    def score(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the scores, and leave the memory as it is."""
        ...

    def remember(self, weight: Tensor, grad: Tensor | None) -> None:
        """Move the memory on by one update. It gets new tensors: those in it may be in a saved state."""
        ...


def moved_on(mean: Tensor | None, delta: Tensor, decay: float, total: Callable[[Tensor], Tensor] = itself) -> Tensor:
    """Return decay * mean + (1 - decay) * delta / ||delta||_2, in the memory of `delta`; no mean is one of zeros.

    Args:
        mean: of the updates before.
        delta: of this one.
        decay: the share of the mean that stays.
        total: from the sum over a piece of the weight to that over all of it.
    """
    norm = torch.linalg.vector_norm(where_float64_is(delta), dtype=torch.float64)
    norm = norm if total is itself else total(norm.square()).sqrt()
    norm = norm.to(delta.device, delta.dtype, non_blocking=True)
    delta.div_(torch.where(norm > 0, norm, 1.0)).mul_(1.0 - decay)
    for part, of in by_rows(delta, mean) if mean is not None else ():
        part.add_(decay * of)
    return delta


def of_each_weight(scores: Tensor, weight: Tensor) -> Tensor:
    """Return one score per output for each of the output's weights, in the weight's shape."""
    return scores.repeat_interleave(weight.shape[1:].numel()).view_as(weight)


def times_magnitude(scores: Tensor, weight: Tensor) -> Tensor:
    """Return scores * |weight|, in the memory of `scores`."""
    for part, of in by_rows(scores, weight):
        part.mul_(of.abs())
    return scores
