"""`Pruner`: the ideas composed, a model attached, and a verb for each event of a training step. Pure PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_prune import given
from lightning_prune.budget import Budget, MeasuredBudget, Weights
from lightning_prune.criterion import Criterion, Magnitude, SitedCriterion
from lightning_prune.masks import apply_all, zero_gradients
from lightning_prune.parsed import parsed
from lightning_prune.pattern import CoupledPattern, Element, Pattern, SitedPattern
from lightning_prune.pruning import checks
from lightning_prune.pruning.attached import Attached
from lightning_prune.pruning.chosen import Chosen
from lightning_prune.pruning.engine import Engine
from lightning_prune.pruning.measured import Measured, measure
from lightning_prune.pruning.penalty import add_gradient
from lightning_prune.pruning.reconstructing import check_reconstruction, chooser
from lightning_prune.pruning.regrowing import check_regrowth
from lightning_prune.pruning.units_found import UnitsFound, coupling_of
from lightning_prune.pruning.waiting import Trained
from lightning_prune.reconstruction import Reconstruction
from lightning_prune.regrowth import Regrowth
from lightning_prune.regularizer import Regularizer, SitedRegularizer
from lightning_prune.report import Report
from lightning_prune.schedule import Schedule, ToldSchedule
from lightning_prune.scope import GlobalRanking, Scope
from lightning_prune.selection import Exact, Selection
from lightning_prune.targets import Targets

log = logging.getLogger(__name__)


@parsed
class Pruner(Engine[Attached]):
    """Prune a model while it trains.

    Attach it to the model, call `before_step` between backward and the optimizer's step, `after_step` after it, and
    `strip` at the end. Between attach and strip every pruned weight is zero after each `after_step`.

    Args:
        schedule: when, and how sparse by then.
        criterion: what a weight is worth.
        pattern: what lives and dies together.
        scope: who may keep how many.
        selection: from scores and counts to masks.
        targets: which weights.
        regularizer: what is added to the loss; None for nothing.
        reversible: keep the last dense values of pruned weights (4 bytes a weight) and let them compete again.
        name: what the report and the log call it.
        budget: what the sparsity is a share of.
        reconstruction: says in the criterion's place what stays, and gives it new values; None for none.
        regrowth: which pruned weights return at an update, for as many others; None for none.

    Raises:
        ValueError: the ideas do not go together; the message names them.
    """

    def __init__(
        self,
        schedule: Schedule,
        criterion: Criterion | SitedCriterion = Magnitude(),
        pattern: Pattern | SitedPattern | CoupledPattern = Element(),
        scope: Scope = GlobalRanking(),
        selection: Selection = Exact(),
        targets: Targets = Targets(),
        regularizer: Regularizer | SitedRegularizer | None = None,
        reversible: bool = False,
        name: str = "pruning",
        budget: Budget = Weights(),
        reconstruction: Reconstruction | None = None,
        regrowth: Regrowth | None = None,
    ) -> None:
        self.schedule = schedule
        self.criterion = criterion
        self.pattern = pattern
        self.scope = scope
        self.selection = selection
        self.targets = targets
        self.regularizer = regularizer
        self.reversible = reversible
        self.budget = budget
        self.units_found: UnitsFound | None = None
        self.measured: dict[str, Any] | None = None
        self.put_off = ""  # why the update that was due when it was stripped had not been made
        self.reconstruction = reconstruction
        self.regrowth = regrowth
        super().__init__(name)
        given.flag("reversible", reversible)
        checks.check_ideas(schedule, criterion, pattern, scope, selection, targets, regularizer)
        checks.check_budget(budget, pattern, targets)
        checks.check_speedup(budget, schedule, chooser(self))
        check_reconstruction(reconstruction, schedule, criterion, pattern)
        checks.check_corrected(chooser(self), reversible)
        checks.check_foreseen(regularizer, chooser(self))
        checks.check_told(schedule, criterion, targets, reversible)
        checks.check_holding(schedule, targets, regularizer, reversible, budget)
        others = {"reconstruction": reconstruction, "reversible": reversible}
        check_regrowth(regrowth, schedule, criterion, pattern, others)

    def __repr__(self) -> str:
        """Return the constructor call."""
        keys = (
            "schedule",
            "criterion",
            "pattern",
            "scope",
            "selection",
            "targets",
            "regularizer",
            "reversible",
            "budget",
        )
        keys += tuple(key for key in ("reconstruction", "regrowth") if getattr(self, key) is not None)
        return f"Pruner({', '.join(f'{key}={getattr(self, key)!r}' for key in keys)})"

    # The model

    def find_units(self, model: nn.Module) -> None:
        """Find the units of a pattern such as `Channel` in a model that is about to be taken apart over ranks.

        `attach` then takes them from here: they cannot be seen in pieces. The callback calls it. Of other patterns it
        finds nothing.

        Args:
            model: the model, whole; the same that `attach` gets.

        Raises:
            ValueError: there are no example inputs, or the model does not run on them.
        """
        if isinstance(self.pattern, CoupledPattern):
            self.units_found = UnitsFound(model, self.pattern, self.budget)

    @property
    def measures(self) -> bool:
        """Whether the next attach, with what was loaded and handed over so far, is to measure something first."""
        return isinstance(self.budget, MeasuredBudget) and self._known_measurements is None

    @property
    def _known_measurements(self) -> Measured | None:
        if not isinstance(self.budget, MeasuredBudget):
            return None
        known = (self._pending or {}).get("measured") or self.measured
        return None if known is None else Measured.from_dict(known)

    def measure(self, model: nn.Module, trained: Trained = None) -> dict[str, Any] | None:
        """Measure what the budget goes by; None where it goes by nothing that is measured.

        `attach` does it by itself. Where several processes prune alike, have one do it, and set `measured` of all their
        pruners to what it returns before they attach. The callback does so.

        Args:
            model: not pruned yet, on the device where it will train; it stays as it is.
            trained: as for `attach`.

        Returns:
            Plain values; those of a state that waits for attach where it has any.

        Raises:
            ValueError: it cannot be measured, or no copy is as fast as asked for; the message says why.
        """
        known = self._known_measurements
        if known is None and isinstance(self.budget, MeasuredBudget):
            coupling = coupling_of(self.pattern, model, self.units_found)
            units = Chosen(self.targets, coupling, model, trained, lambda _: {}).units
            assert units is not None
            known = measure(self, model, units)
        return None if known is None else known.to_dict()

    def _put(
        self, model: nn.Module, length: int | None, total_steps: int | None, trial: bool, trained: Trained
    ) -> Attached:
        measured = self._known_measurements
        on_model = Attached(self, model, length, total_steps, trial, trained, measured)
        self.measured = None
        if self._pending is None:  # a state brings its masks
            try:
                on_model.hold()
            except BaseException:
                self._take_off(on_model)
                raise
        return on_model

    def _take_off(self, on_model: Attached) -> None:
        on_model.release()

    def strip(self, resumable: bool = False) -> Report:
        """Take the masks off and leave plain parameters, with zeros where they were pruned.

        Args:
            resumable: the run broke off; `state_dict` goes on answering with the masks as they were.

        Returns:
            The report of what is left. Calling it again when nothing is attached returns the same report.
        """
        if self._model is not None:
            on_model = self._last_look(resumable)
            on_model.masks.apply()
            split = resumable and on_model.masks.split  # other ranks may have failed: nothing is asked of them
            self._final_report = on_model.report(counting=not split)
            if not resumable:
                self._final_report = on_model.with_speedup(self._final_report)
            size, share = self._final_report.size, 100 * self._final_report.sparsity
            log.info("%s: %d values, %.2f %% zeros", self.name, size, share)
            self.put_off = on_model.put_off
            self._left = on_model.header() if split else self.state_dict()
            self._later = on_model.state_dict if split else None
            if not (resumable or self._unfinished):
                self._left = on_model.header() | {"thresholds": self._left["thresholds"], "stripped": True}
            on_model.release()
            self._model = None
        return self.report()

    def scalars(self, report: Report | None = None) -> dict[str, float]:
        """Return the numbers of now for a logger; those of a report where it is made already."""
        numbers = (report or self.report()).scalars() | {"changed": self.changed}
        return numbers if self.regularizer is None else numbers | {"regularizer": self.penalty}

    # One step

    def before_step(self, optimizer: Optimizer | None = None, grad_scale: float = 1.0) -> None:
        """Add the regularizer's gradient and take pruned gradients out. Call it between backward and the step.

        Gradients must be complete (accumulated, reduced over ranks) and not clipped yet.

        Args:
            optimizer: the one about to step, where there are several; None for all weights.
            grad_scale: the factor by which a loss scaler has multiplied the gradients, if they still carry it.
        """
        masks = self.masks
        steps = None if optimizer is None else masks.steps(optimizer)
        weights = list(masks.values()) if steps is None else steps.weights
        self._on_model.observe(weights, grad_scale)
        if self.regularizer is not None:
            value = add_gradient(self._on_model.regularizers(weights), grad_scale)
            if value is not None:
                self._penalties[id(optimizer)] = value
        if steps is None:
            zero_gradients(weights)
        else:
            steps.before()

    def stepped(self, optimizer: Optimizer) -> None:
        """Set pruned weights of an optimizer to zero, if the step that it has just made may have written to them.

        One that is known to leave zeros alone is trusted between looks, where `before_step(optimizer)` was called.
        """
        self.masks.steps(optimizer).after()

    def _all_stepped_by(self, optimizers: Iterable[Optimizer]) -> bool:
        masks = self.masks
        return len({id(w) for optimizer in optimizers for w in masks.steps(optimizer).weights}) == len(masks)

    def mask_weights(self, optimizer: Optimizer | None = None) -> None:
        """Set pruned weights to zero: those of one optimizer, or all."""
        if optimizer is None:
            self.masks.apply()
        else:
            apply_all(self.masks.of(optimizer))

    def tell(self, step: int, value: float) -> None:
        """Tell a schedule that asks for one the metric of a validation, with the weights as they are now.

        What follows from it, more that goes or weights that go back, happens at the next update: `pruning_waits` says
        that there is something. Other schedules take no notice.

        Args:
            step: how many optimizer steps are completed. A validation at the same step again is not counted.
            value: the metric; NaN is outside of every budget.
        """
        self._now.tell(step, value)
        self._resolved = self._on_model.schedule

    @property
    def waits_for_metric(self) -> str | None:
        """The name of the metric that `tell` is to be told; None where the schedule asks for none."""
        return self.schedule.metric if isinstance(self.schedule, ToldSchedule) else None

    @property
    def told(self) -> list[tuple[int, float]]:
        """What `tell` was told: (completed optimizer steps, metric) of each validation."""
        telling = self._on_model.telling
        return [] if telling is None else telling.values()

    @property
    def pruning_waits(self) -> bool:
        """Whether something follows from the latest `tell`, and was not done yet."""
        telling = self._on_model.telling
        return telling is not None and telling.owes

    def settle(self, step: int, optimizers: Iterable[Optimizer] = ()) -> bool:
        """End a run with the weights of the last good validation. Call it before `strip`; returns whether any moved."""
        moved = self._now.settle(step, tuple(optimizers))
        self._resolved = self._on_model.schedule
        return moved

    def mask_copies(self, saved: Any) -> dict[str, Any]:
        """Set pruned weights to zero wherever nested dicts hold a copy of them by name; nothing is to be put back."""
        self.masks.apply_to(saved)
        return {}
