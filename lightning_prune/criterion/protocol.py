"""What a criterion must answer, and where and when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_prune import given
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
        expert: which of the experts that the weight stacks, where they are asked for one by one.
    """

    name: str
    step: int
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    sparsity: float = 0.0
    norm: Tensor | None = None
    total: Callable[[Tensor], Tensor] = itself
    place: Callable[[Tensor], Tensor] = itself
    expert: int = 0


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


Observed = Literal["gradient", "input", "squared input", "output", "activation", "saliency"]
"""What a criterion may look at in training; `ObservingCriterion` says what it gets of each."""


@runtime_checkable
class ObservingCriterion(Protocol):
    """A criterion that looks at training in the steps before an update. It is a `SitedCriterion` besides.

    What it sees in a step becomes sums: those of a layer's values are added up over ranks, and all go into the memory
    that `at(site)` gets, which is saved with the pruner. The memory is emptied after each update, unless `window` is
    None or `decay`, below 1, makes it a running mean. One with `rows = ("key", ...)` has these put one below the
    other instead of added. One with `by_step = ("key", ...)` has these kept by themselves, under "key/0", "key/1" and
    so on; when there are `most_steps` of them and one more comes, its `folded` is given a mapping for each, in order,
    and what it returns is added to the memory in their place. Below, of a weight (outputs, inputs, ...):

    - "gradient": the weight's gradient, complete, with neither regularizer nor masks in it, in the weight's shape;
    - "input": what the weight multiplies, (examples, groups, inputs, ..., positions), see `observing.inputs_of`;
    - "squared input": the squares of that, summed over examples: (1, groups, inputs, ..., positions);
    - "output": what its layer gives, without the bias, (examples, outputs, positions);
    - "activation": the values of a pattern's units where a layer reads them, so behind norm and activation, (examples,
      units, positions); the weight is then (units, entries). Of several layers that read, each is seen by itself;
    - "saliency": those times the gradient of an example's own loss.

    A step may have no example: then the sums are zeros.
    """

    @property
    def observes(self) -> Observed:
        """What it looks at."""
        ...

    @property
    def window(self) -> int | None:
        """Over how many optimizer steps before each update; None for all, from the first step on."""
        ...

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the sums of what is seen in a forward, or of a step's gradient: new tensors, by key of the memory.

        With `decay` d, a memory m and what is returned x: m <- d m + (1 - d) x. One that says `of_entries` may be given
        a weight in parts, flattened; sums of a single number are then those of the first.
        """
        ...

    def at(self, site: Site) -> Any: ...


@runtime_checkable
class CorrectingCriterion(Protocol):
    """A criterion that knows better values for the weights that stay, once it is known which go."""

    def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
        """Return a weight, its outputs first, with new values where `keep` is true; what is elsewhere is ignored."""
        ...


@runtime_checkable
class HostedCriterion(Protocol):
    """A criterion that looks at weights on the host, wherever they lie: it gets all of an update at once."""

    def hosted(self, weights: Mapping[str, Tensor]) -> SitedCriterion:
        """Return the criterion for one update; it finds these weights, by name and output dimension first, here.

        Of a stack of experts the outputs come one below the other, as many of each; `Site.expert` says which of them
        is asked for. It may be asked for other weights as well. Scores lie where the weight that it is asked for does.
        """
        ...


def check_window(window: int | None) -> None:
    """Raise ValueError unless a window is None or a number of steps."""
    if window is not None:
        given.whole("window", window, 1, hint=", in optimizer steps, or None for all steps")


def remembered(memory: Mapping[str, Tensor], key: str, name: str) -> Tensor:
    """Return what was summed up in training. Raises ValueError, which names the weight, if nothing was."""
    if key not in memory:
        raise ValueError(
            f"the criterion looks at training, and has seen nothing of '{name}': no step came before this update, or "
            "before_step() was not called"
        )
    return memory[key]


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor detached, in float32 or wider."""
    return tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()


def doubled(tensor: Tensor) -> Tensor:
    """Return a tensor detached in float64; on the CPU, where its device has none."""
    return where_float64_is(tensor.detach()).double()


def variances(memory: Mapping[str, Tensor], name: str) -> Tensor:
    """Return variances from `norms`, the sums of numbers, `squares`, those of their squares, and their `count`.

    Raises ValueError, which names the weight, if nothing was summed up.
    """
    means = share_out(remembered(memory, "norms", name), memory["count"])
    return (share_out(memory["squares"], memory["count"]) - means.square()).clamp(min=0.0)


def share_out(sums: Tensor, count: Tensor) -> Tensor:
    """Return means from sums and how many were summed; 0 where nothing was."""
    return sums / count.clamp(min=1)


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
