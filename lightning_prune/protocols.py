"""The seams of the library: six nouns, each one Protocol, and the small records that pass between them.

An idea is a frozen dataclass that satisfies one of these Protocols. Nothing has to be registered or subclassed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lightning_prune.coupling.units import Coupling


class Schedule(Protocol):
    """When to prune, and how sparse to be by then. Steps are completed optimizer steps.

    `begin_step` and `end_step` bound the window. A float is a share of the run and must be resolved before use.
    """

    @property
    def final_sparsity(self) -> float: ...
    @property
    def begin_step(self) -> int | float: ...
    @property
    def end_step(self) -> int | float: ...

    def resolve(self, total_steps: int | None) -> Schedule:
        """Return this schedule in whole steps. Raises ValueError if shares are used and `total_steps` is None."""
        ...

    def last_update(self, step: int) -> int | None:
        """Return the newest update step not after `step`, or None before the first."""
        ...

    def sparsity(self, step: int) -> float:
        """Return the share of weights that should be zero at `step`, in [0, 1]."""
        ...


@dataclass(frozen=True)
class Site:
    """Where and when a criterion or a pattern is asked.

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

        The output dimension comes first: a transposed convolution's weight is handed over turned.
        """
        ...


@runtime_checkable
class SitedCriterion(Protocol):
    """A criterion that differs by place and time, or that remembers: `at(site)` gives the one to call there."""

    def at(self, site: Site) -> Criterion: ...


class Pattern(Protocol):
    """What lives and dies together. Tensors come with the output dimension first and the input dimension second."""

    @property
    def single(self) -> bool:
        """Whether every weight is a unit of its own and none is protected."""
        ...

    @property
    def least_sparsity(self) -> float:
        """The smallest final sparsity, other than 0, at which the pattern holds."""
        ...

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per unit, from one score per weight."""
        ...

    def protected(self, units: Tensor) -> Tensor | None:
        """Return, in the units' shape, which units go only after all others of the pool; None if all are equal."""
        ...

    def weights_per_unit(self, shape: torch.Size) -> int | Tensor:
        """Return how many weights a unit holds: one int for all, or an int64 tensor in the units' shape."""
        ...

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return the bool mask of `shape` for the units kept."""
        ...


@runtime_checkable
class SitedPattern(Protocol):
    """A pattern that differs by weight: `at(site)` gives the one for that weight."""

    def at(self, site: Site) -> Pattern: ...


@runtime_checkable
class CoupledPattern(Protocol):
    """A pattern whose units are slices of many weights: `couple(model)` finds them, once, when pruning starts.

    If it has a true `readers`, units are scored by the weights that read them as well; a criterion that has a true
    `of_outputs` gives each weight its output's score, and is refused beside that.
    """

    @property
    def multiple(self) -> int:
        """Each group keeps a multiple of so many units, where it has as many."""
        ...

    @property
    def normalize(self) -> bool:
        """Whether scores are divided by their group's mean before groups are ranked together."""
        ...

    @property
    def example_inputs(self) -> Any:
        """What one forward takes; None for the module's `example_input_array`."""
        ...

    def couple(self, model: nn.Module) -> Coupling:
        """Return the groups of units that can be removed. Raises ValueError if the model cannot be traced."""
        ...


@dataclass(frozen=True)
class Layer:
    """One prunable weight as a scope sees it: name, shape, size, and how many of its entries are gone for good."""

    name: str
    shape: tuple[int, ...]
    size: int
    pruned: int


@dataclass(frozen=True)
class Pool:
    """Weights that compete with each other, and how many of their entries must be zero afterwards."""

    names: tuple[str, ...]
    drop: int
    sparsity: float


class Scope(Protocol):
    """Who competes with whom, and how many each may keep."""

    def __call__(self, layers: Sequence[Layer], sparsity: float) -> Sequence[Pool]:
        """Return disjoint pools that cover all layers."""
        ...


@dataclass(frozen=True)
class Units:
    """The units of one weight, to be ranked.

    Attributes:
        name: dotted name of the weight, for errors.
        values: scores in the units' shape; or, where `absolute`, the weight itself, whose score is its absolute value.
        absolute: rank |values|, so that nothing has to be materialised.
        alive: bool in the units' shape: units not pruned before; None if all are. The others stay pruned.
        protected: bool in the units' shape: units that go only after all others; None if there are none.
        weights: weights per unit, one int for all or a tensor in the units' shape.
        threshold: the weight's threshold so far.
    """

    name: str
    values: Tensor
    absolute: bool = False
    alive: Tensor | None = None
    protected: Tensor | None = None
    weights: int | Tensor = 1
    threshold: float = 0.0

    def scores(self) -> Tensor:
        """Return the scores as a tensor. Raises ValueError that names the weight if one is not finite."""
        if not bool(torch.isfinite(self.values).all()):
            raise non_finite(self.name)
        return self.values.abs() if self.absolute else self.values


def non_finite(name: str) -> ValueError:
    """Return the error for a score that is NaN or infinite."""
    return ValueError(
        f"a pruning score of '{name}' is not finite, so its weights cannot be ranked; "
        "look for a diverged loss or an overflow before this step"
    )


class Selection(Protocol):
    """From scores and counts to masks."""

    @property
    def exact(self) -> bool:
        """Whether exactly `drop` weights go, as closely as whole units allow, protected units last."""
        ...

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return for each member which units to keep (bool, the units' shape), and the new threshold."""
        ...


@dataclass(frozen=True)
class Moment:
    """Where and when a regularizer is asked.

    Attributes:
        role: what the tensor is: a weight, the scales of a norm, or a bias; the last two with coupled patterns alone.
        progress: through the schedule's window at the latest update, from 0 to 1.
        going: bool in the tensor's shape, the entries that would go if the final sparsity were asked for at the latest
            update; None before the first.
    """

    role: Literal["weight", "norm", "bias"] = "weight"
    progress: float = 0.0
    going: Tensor | None = None


class Regularizer(Protocol):
    """What is added to the loss for one pruned weight. Its gradient is taken by autograd."""

    def __call__(self, weight: Tensor, threshold: float) -> Tensor:
        """Return a scalar."""
        ...


@runtime_checkable
class SitedRegularizer(Protocol):
    """A regularizer that differs by role and time: `at(moment)` gives the one to call; also for norms and biases."""

    def at(self, moment: Moment) -> Regularizer: ...


class Gate(Protocol):
    """How the logit of a unit becomes a random mask that can be learned."""

    def first(self, number: int, generator: torch.Generator) -> Tensor:
        """Return the logits that so many units begin with."""
        ...

    def probability(self, logits: Tensor) -> Tensor:
        """Return the probability of each unit to be kept, differentiable."""
        ...

    def sample(self, logits: Tensor, uniform: Tensor, progress: float) -> Tensor:
        """Return masks in [0, 1] for draws from U(0, 1), whose last dimension is the units.

        They are differentiable in the logits. `progress` is the share of the window that is over.
        """
        ...

    def settled(self, logits: Tensor) -> Tensor:
        """Return by what the output of each unit that is kept is multiplied in evaluation."""
        ...


class Threshold(Gate, Protocol):
    """The gate of one weight tensor whose single logit is the logarithm of a threshold on the magnitudes."""

    def on(self, weight: Tensor) -> Threshold:
        """Return the gate of a copy of the weight, with values of its own."""
        ...

    def worth(self, logits: Tensor) -> Tensor:
        """Return ln(|w| / t) of each entry, a large negative number for w = 0."""
        ...

    def threshold(self, logits: Tensor) -> float:
        """Return the threshold on the magnitudes."""
        ...

    def crossing(self, logits: Tensor) -> Tensor:
        """Return how many entries the threshold crosses while its logarithm grows by 1."""
        ...


@runtime_checkable
class ThresholdGate(Protocol):
    """A learned threshold for each weight tensor: `at(weight, T)` gives the gate of one."""

    def at(self, weight: Tensor, threshold: float) -> Threshold: ...


class MaskRegularizer(Protocol):
    """What is added to the loss for the probabilities of learned masks. Its gradient is taken by autograd."""

    @property
    def needs_schedule(self) -> bool:
        """Whether it means something only where a schedule asks for a sparsity."""
        ...

    def __call__(self, p: Tensor, expected: Tensor, asked: float) -> Tensor:
        """Return a scalar.

        Args:
            p: the probabilities of all units of all groups to be kept.
            expected: the expected share of zeros among the weights, differentiable.
            asked: the share that the schedule asks for now; 0 without one.
        """
        ...
