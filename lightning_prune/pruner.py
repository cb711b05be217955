"""The engine: six ideas composed, a model attached, and a verb for each event of a training step. Pure PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import checks
from lightning_prune.attached import Attached, check_version
from lightning_prune.criterion.magnitude import Magnitude
from lightning_prune.masks import Masks
from lightning_prune.pattern.element import Element
from lightning_prune.protocols import (
    CoupledPattern,
    Criterion,
    Pattern,
    Regularizer,
    Schedule,
    Scope,
    Selection,
    SitedCriterion,
    SitedPattern,
    SitedRegularizer,
)
from lightning_prune.regularize import add_gradient
from lightning_prune.report import Report
from lightning_prune.scope.global_ranking import GlobalRanking
from lightning_prune.selection.exact import Exact
from lightning_prune.targets import Targets

log = logging.getLogger(__name__)


class Pruner:
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
    ) -> None:
        self.schedule = schedule
        self.criterion = criterion
        self.pattern = pattern
        self.scope = scope
        self.selection = selection
        self.targets = targets
        self.regularizer = regularizer
        self.reversible = reversible
        self.name = name
        checks.check_ideas(schedule, criterion, pattern, scope, selection, targets, regularizer)
        self._model: Attached | None = None
        self._resolved: Schedule | None = None
        self._penalties: dict[int, Tensor] = {}
        self._pending: dict[str, Any] | None = None
        self._left: dict[str, Any] = {}
        self._final_report: Report | None = None

    def __repr__(self) -> str:
        """Return the constructor call."""
        keys = ("schedule", "criterion", "pattern", "scope", "selection", "targets", "regularizer", "reversible")
        return f"Pruner({', '.join(f'{key}={getattr(self, key)!r}' for key in keys)})"

    # The model

    @property
    def attached(self) -> bool:
        """Whether masks are on a model now."""
        return self._model is not None

    @property
    def masks(self) -> Masks:
        """The masked weights by name. Raises RuntimeError when not attached."""
        return self._on_model.masks

    @property
    def resolved_schedule(self) -> Schedule:
        """The schedule in whole steps. Raises RuntimeError before the first attach."""
        if self._resolved is None:
            raise RuntimeError("the schedule is resolved by attach(model, total_steps)")
        return self._resolved

    @property
    def saved_length(self) -> int | None:
        """The run's length in a state that was loaded and waits for attach; None if there is none."""
        return (self._pending or {}).get("total_steps")

    def attach(self, model: nn.Module, total_steps: int | None = None, trial: bool = False) -> None:
        """Put a mask and a threshold beside every target of the model, and restore a state that was loaded before.

        Args:
            model: the model, on the device where it will train.
            total_steps: how many optimizer steps the run will take, if known; needed by schedules given in shares.
            trial: `total_steps` is not the whole run's length; a window past it is then no error.

        Raises:
            ValueError: nothing to prune, a rule that matches nothing, a window that cannot be met.
            RuntimeError: already attached.
        """
        if self.attached:
            raise RuntimeError("the pruner is already attached: strip() it first")
        # Shares of the run keep their meaning when a run is resumed with another length.
        here = Attached(self, model, self.saved_length or total_steps, total_steps, trial)
        try:
            if self._pending is not None:
                here.load_state_dict(self._pending)
        except BaseException:
            here.masks.hide()
            raise
        self._model, self._resolved = here, here.schedule
        self._pending, self._left, self._penalties, self._final_report = None, {}, {}, None

    def strip(self, resumable: bool = False) -> Report:
        """Take the masks off and leave plain parameters, with zeros where they were pruned.

        Args:
            resumable: the run broke off; `state_dict` goes on answering with the masks as they were.

        Returns:
            The report of what is left. Calling it again when nothing is attached returns the same report.
        """
        if self._model is not None:
            self.masks.apply()
            self._final_report = self.report()
            for weight in self._final_report.weights:
                log.info("%s: %d values, %.2f %% zeros", weight.name, weight.size, 100 * weight.sparsity)
            unfinished = self.last_update is None or self.last_update < self.resolved_schedule.end_step
            self._left = self.state_dict()
            if not (resumable or unfinished):
                self._left = self._model.header() | {"thresholds": self._left["thresholds"], "stripped": True}
            self.masks.hide()
            self._model = None
        return self.report()

    def report(self) -> Report:
        """Return the numbers of now; after strip, those of the stripped model. Raises RuntimeError before attach."""
        if self._model is None and self._final_report is not None:
            return self._final_report
        return self._on_model.report()

    def scalars(self) -> dict[str, float]:
        """Return the numbers of now for a logger."""
        numbers = self.report().scalars() | {"changed": self.changed}
        return numbers if self.regularizer is None else numbers | {"regularizer": self.penalty}

    # One step

    def before_step(self, optimizer: Optimizer | None = None, grad_scale: float = 1.0) -> None:
        """Add the regularizer's gradient and take pruned gradients out. Call it between backward and the step.

        Gradients must be complete (accumulated, reduced over ranks) and not clipped yet.

        Args:
            optimizer: the one about to step, where there are several; None for all weights.
            grad_scale: the factor by which a loss scaler has multiplied the gradients, if they still carry it.
        """
        weights = self.masks.of(optimizer)
        if self.regularizer is not None:
            value = add_gradient(self._on_model.regularizers(weights), grad_scale)
            if value is not None:
                self._penalties[id(optimizer)] = value
        for weight in weights:
            weight.apply_to_grad()

    def mask_weights(self, optimizer: Optimizer | None = None) -> None:
        """Set pruned weights to zero: those of one optimizer, or all."""
        for weight in self.masks.of(optimizer):
            weight.apply()

    def mask_copies(self, saved: Any) -> None:
        """Set pruned weights to zero wherever nested dicts hold a copy of them by name."""
        self.masks.apply_to(saved)

    def after_step(self, step: int, optimizers: Iterable[Optimizer] = ()) -> bool:
        """Mask the weights, and update the masks if the schedule has an update due.

        Args:
            step: how many optimizer steps are completed. It may jump, and may be given more than once.
            optimizers: whose moments of newly pruned weights are to be cleared.

        Returns:
            Whether the masks were updated.

        Raises:
            ValueError: a score is not finite; the message names the weight. No weight and no mask is changed then.
        """
        self.masks.apply()  # before anything is ranked: what got into a pruned entry must not count
        return self.update(step, optimizers)

    def update(self, step: int, optimizers: Iterable[Optimizer] = ()) -> bool:
        """Update the masks if the schedule has an update due, as `after_step` does; but mask nothing otherwise."""
        return self._on_model.update(step, optimizers)

    @property
    def penalty(self) -> float:
        """The regularizer's value at the latest step, 0 without one."""
        return sum(float(value) for value in self._penalties.values())

    @property
    def changed(self) -> float:
        """The share of all mask entries that the latest update changed."""
        return self._on_model.changed

    @property
    def last_update(self) -> int | None:
        """The step of the latest update, None before the first."""
        return self._left.get("last_update") if self._model is None else self._model.step

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: plain values and tensors that load with `weights_only=True`.

        After `strip` it is a few numbers: the masks can then be read off the zeros of the weights. Only where the
        schedule was not at its end, or the run broke off, is it the same as before `strip`, so that both can go on.
        """
        if self._model is None:
            return dict(self._left or self._pending or {})
        return self._model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state: at once when attached, else at the next attach.

        Raises:
            ValueError: the state is of a newer version, or of other weights.
        """
        check_version(state)
        if self._model is None:
            self._pending = dict(state)
            return
        self._model.load_state_dict(state)
        self._resolved = self._model.schedule

    def forget(self) -> None:
        """Drop a state that was loaded and waits for the next attach."""
        self._pending = None

    @property
    def _on_model(self) -> Attached:
        if self._model is None:
            raise RuntimeError("the pruner is not attached to a model: call attach(model) first")
        return self._model
