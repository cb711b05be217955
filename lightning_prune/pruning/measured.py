"""What is measured of a model before it is pruned, and once it was: a budget's own figures, and how fast copies run."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_prune import saved
from lightning_prune.budget import Budget, MeasuredBudget
from lightning_prune.cost.layer_times import using
from lightning_prune.coupling.couple import eagerly, plain_copy
from lightning_prune.coupling.example import example_of, own_randomness, with_batch
from lightning_prune.coupling.remove import remove
from lightning_prune.coupling.units import Group
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning.ideas import Ideas
from lightning_prune.pruning.target import CostTarget, sparsity_for, steady_latency
from lightning_prune.pruning.trial import Trial
from lightning_prune.pruning.unit_targets import UnitTargets
from lightning_prune.report import percent
from lightning_prune.schedule import Schedule

_WHERE = "the pruning state: measured"
_BLOCKS = 16


@dataclass(frozen=True)
class Faster:
    """The final sparsity that was found for a speed-up.

    Attributes:
        asked: how many times as fast a copy was to be.
        sparsity: the share of the budget that goes.
        units: the share of the units that went from the copy.
        speedup: how many times as fast it was measured.
    """

    asked: float
    sparsity: float
    units: float
    speedup: float


@dataclass(frozen=True)
class Measured:
    """What was measured of a model before it was pruned.

    Attributes:
        budget: the budget's own measurements.
        faster: what its speed-up comes to; None where none is asked for.
    """

    budget: Mapping[str, Any]
    faster: Faster | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, which load with `weights_only=True`."""
        return {"budget": dict(self.budget), "faster": None if self.faster is None else asdict(self.faster)}

    @classmethod
    def from_dict(cls, found: Any) -> Measured:
        """Return what `to_dict` has given. Raises ValueError if it is damaged."""
        values = saved.mapping(_WHERE, found)
        faster = values.get("faster")
        if faster is not None:
            where = f"{_WHERE}: faster"
            numbers = saved.mapping(where, faster)
            asked, speedup = (saved.number(f"{where}: {k}", saved.at(where, numbers, k), 0.0, 1e9) for k in _TIMES)
            sparsity, units = (saved.number(f"{where}: {k}", saved.at(where, numbers, k), 0.0, 1.0) for k in _SHARES)
            faster = Faster(asked, sparsity, units, speedup)
        return cls(saved.mapping(f"{_WHERE}: budget", saved.at(_WHERE, values, "budget")), faster)

    def taken_by(self, ideas: Ideas) -> tuple[Budget, Schedule]:
        """Return a pruner's budget, which knows of it, and its schedule, which ends where the speed-up is met.

        Raises:
            ValueError: it is damaged, was measured for another speed-up, or the schedule begins past that.
        """
        budget, schedule, faster = ideas.budget, ideas.schedule, self.faster
        budget = budget.knowing(self.budget) if isinstance(budget, MeasuredBudget) else budget
        asked = getattr(budget, "speedup", None) if schedule.final_sparsity else None
        if asked != (faster and faster.asked):
            before = (
                "no speed-up" if faster is None else f"speedup={faster.asked:g}, at a sparsity of {faster.sparsity:g}"
            )
            raise ValueError(
                f"speedup={asked} is asked for, and the saved run was to meet {before}: units go for good. Resume with "
                "that, or begin a new run from the weights alone"
            )
        if faster is None:
            return budget, schedule
        try:
            return budget, replace(cast(Any, schedule), final_sparsity=faster.sparsity)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"speedup={faster.asked:g} comes to a final sparsity of {faster.sparsity:g}, which does not go with "
                f"{schedule}: {error}"
            ) from None


_TIMES, _SHARES = ("asked", "speedup"), ("sparsity", "units")


def measure(ideas: Ideas, model: nn.Module, units: UnitTargets) -> Measured | None:
    """Return what is measured for a pruner's budget, here and now; None where it is measured by nothing.

    Args:
        ideas: what the pruner composes.
        model: not pruned yet; it stays as it is.
        units: its units that may be pruned.

    Raises:
        UnreachableError: no copy is as fast as is asked for.
        ValueError: it cannot be measured; the message says why.
    """
    budget, pattern = ideas.budget, ideas.pattern
    if not isinstance(budget, MeasuredBudget) or not isinstance(pattern, CoupledPattern):
        return None
    known: Any = budget.measured(model, pattern.example_inputs)
    asked = getattr(budget, "speedup", None)
    if asked is None or not ideas.schedule.final_sparsity:
        return Measured(known.measurements())
    trial = Trial(model, ideas, known, units)
    with _as_timed(model, known, pattern.example_inputs) as inputs:
        found = sparsity_for(model, ideas, CostTarget("speedup", asked), inputs, trial)
    sparsity, units_gone = trial.gone(found.sparsity)
    faster = Faster(asked, sparsity, units_gone, 1.0 / found.share)
    return Measured(known.measurements(), faster)


def note_of_measured(measured: Measured | None, schedule: Schedule) -> list[str]:
    """Return what the plan says of a speed-up."""
    if measured is None or measured.faster is None:
        return []
    faster = measured.faster
    return [
        f"speedup={faster.asked:g}: {percent(faster.units)} of the units are to go; a copy without them ran "
        f"{faster.speedup:.2f} times as fast, measured before training. So final_sparsity={faster.sparsity:.6g} takes "
        f"the place of {schedule.final_sparsity:g}"
    ]


def speedup_now(
    model: nn.Module, budget: Any, pattern: CoupledPattern, groups: Sequence[Group], keeps: Sequence[Tensor]
) -> float:
    """Return how many times as fast a model is without the units that are dead, measured here and now on copies."""
    smaller, larger = plain_copy(model), plain_copy(model)
    remove(smaller, groups, keeps)
    with _as_timed(model, budget, pattern.example_inputs) as inputs:
        before, after = steady_latency((larger, smaller), inputs, _BLOCKS)
    return before / after


@contextmanager
def _as_timed(model: nn.Module, budget: Any, example_inputs: Any) -> Generator[Any, None, None]:
    """Give example inputs with the batch of a budget, and have its threads used and random states kept meanwhile."""
    inputs, batch = example_of(model, example_inputs), getattr(budget, "batch", None)
    with own_randomness(), using(getattr(budget, "threads", None)), eagerly(model), torch.no_grad():
        yield inputs if batch is None else with_batch(inputs, batch)
