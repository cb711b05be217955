"""The engine: six ideas composed, a model attached, and a verb for each event of a training step. Pure PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import checks
from lightning_prune.competition import Competition, Decision
from lightning_prune.criterion.magnitude import Magnitude
from lightning_prune.masks import Masks, count
from lightning_prune.pattern.element import Element
from lightning_prune.protocols import Criterion, Pattern, Regularizer, Schedule, Scope, Selection, SitedPattern
from lightning_prune.regularize import add_gradient
from lightning_prune.report import Report, WeightReport
from lightning_prune.scope.global_ranking import GlobalRanking
from lightning_prune.selection.exact import Exact
from lightning_prune.targets import Found, Targets, groups

log = logging.getLogger(__name__)

STATE_VERSION = 1


class Pruner:
    """Prune a model while it trains.

    Attach it to the model, call `before_step` between backward and the optimizer's step, `after_step` after it, and `strip`
    at the end. Between attach and strip every pruned weight is zero after each `after_step`.

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
        criterion: Criterion = Magnitude(),
        pattern: Pattern | SitedPattern = Element(),
        scope: Scope = GlobalRanking(),
        selection: Selection = Exact(),
        targets: Targets = Targets(),
        regularizer: Regularizer | None = None,
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
        self._model: _Attached | None = None
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
        length = self.saved_length or total_steps
        resolved = self.schedule.resolve(length)
        found = self.targets.find(model)
        schedules = {rule: checks.with_final(resolved, rule, self.targets.sparsity) for rule, _ in groups(found)}
        if not trial:
            pruning = [schedule for schedule in (resolved, *schedules.values()) if schedule.final_sparsity]
            checks.check_window(pruning[0] if pruning else resolved, total_steps)
        masks = Masks(found.targets, self.reversible)
        self._model = _Attached(masks, found, sum(p.numel() for p in model.parameters()), length)
        try:
            self._compete(resolved, schedules)
            if self._pending is not None:
                self._check_state(self._pending)
                self._restore(self._pending)
        except BaseException:
            self._detach()
            raise
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
                self._left = self._header() | {"thresholds": self._left["thresholds"], "stripped": True}
            self._detach()
        return self.report()

    def report(self) -> Report:
        """Return the numbers of now; after strip, those of the stripped model. Raises RuntimeError before attach."""
        if self._model is None and self._final_report is not None:
            return self._final_report
        here = self._on_model
        asked = final = 0.0
        finals: dict[str, float] = {}
        for competition in here.competitions:
            asked += competition.size * (0.0 if here.step is None else competition.schedule.sparsity(here.step))
            final += competition.size * competition.schedule.final_sparsity
            finals |= competition.final_sparsities()
        weights = [
            WeightReport(
                name,
                tuple(weight.mask.shape),
                weight.mask.numel(),
                weight.mask.numel() - count(weight.parameter.detach() != 0),
                float(weight.threshold),
                finals.get(name),
            )
            for name, weight in here.masks.items()
        ]
        total = sum(weight.size for weight in weights)
        return Report(weights, here.found.skipped, asked / total, final / total, here.parameters, here.step)

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
            value = add_gradient(self.regularizer, weights, grad_scale)
            if value is not None:
                self._penalties[id(optimizer)] = value
        for weight in weights:
            weight.apply_to_grad()

    def mask_weights(self, optimizer: Optimizer | None = None) -> None:
        """Set pruned weights to zero: those of one optimizer, or all."""
        for weight in self.masks.of(optimizer):
            weight.apply()

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
        here = self._on_model
        due = self.resolved_schedule.last_update(step)
        if due is None or (here.step is not None and due <= here.step):
            return False
        decisions = self._decide(here, due)
        changed = sum(d.weight.write(d.mask, d.threshold) for d in decisions)
        here.step, here.changed = due, changed / sum(competition.size for competition in here.competitions)
        if changed:
            stepping = tuple(optimizers)
            for weight in here.masks.values():
                weight.apply_to_moments(stepping)
        return True

    @staticmethod
    def _decide(here: _Attached, step: int) -> list[Decision]:
        remembered = {name: dict(weight.memory) for name, weight in here.masks.items()}
        try:
            return [decision for competition in here.competitions for decision in competition.decide(step)]
        except BaseException:
            for name, weight in here.masks.items():
                weight.memory = remembered[name]
            raise

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
        state = self._header() | {
            "masks": {name: weight.mask for name, weight in self.masks.items()},
            "thresholds": {name: float(weight.threshold) for name, weight in self.masks.items()},
            "memory": {name: dict(weight.memory) for name, weight in self.masks.items() if weight.memory},
        }
        if self.reversible:
            state["dense"] = {name: weight.ranked() for name, weight in self.masks.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state: at once when attached, else at the next attach.

        Raises:
            ValueError: the state is of a newer version, or of other weights.
        """
        version = state.get("version")
        if not isinstance(version, int) or version > STATE_VERSION:
            raise ValueError(
                f"the pruning state has version {version!r}, this lightning_prune reads up to {STATE_VERSION}: "
                "update lightning_prune to resume from this checkpoint"
            )
        if self._model is None:
            self._pending = dict(state)
            return
        self._check_state(state)
        self._model.length = state["total_steps"] or self._model.length
        resolved = self.schedule.resolve(self._model.length)
        rules = groups(self._model.found)
        self._compete(resolved, {rule: checks.with_final(resolved, rule, self.targets.sparsity) for rule, _ in rules})
        self._restore(dict(state))

    @property
    def _on_model(self) -> _Attached:
        if self._model is None:
            raise RuntimeError("the pruner is not attached to a model: call attach(model) first")
        return self._model

    def _compete(self, resolved: Schedule, schedules: Mapping[str | None, Schedule]) -> None:
        """Set up a competition for the targets without a rule of their own, and one for each rule."""
        here = self._on_model
        here.competitions = [
            Competition(
                schedules[rule],
                {name: [here.masks[target.name] for target in members] for name, members in by_group.items()},
                self.criterion,
                self.pattern,
                self.scope,
                self.selection,
                self.reversible,
            )
            for rule, by_group in groups(here.found)
        ]
        for competition in here.competitions:
            competition.check_pattern()
        self._resolved = resolved

    def _header(self) -> dict[str, Any]:
        here, schedule = self._on_model, self.resolved_schedule
        return {
            "version": STATE_VERSION,
            "total_steps": here.length,
            "begin_step": schedule.begin_step,
            "end_step": schedule.end_step,
            "last_update": here.step,
            "sparsity": 0.0 if here.step is None else schedule.sparsity(here.step),
        }

    def _check_state(self, state: Mapping[str, Any]) -> None:
        if not state.get("stripped"):
            checks.check_masks({name: tuple(w.mask.shape) for name, w in self.masks.items()}, state["masks"])

    def _restore(self, state: Mapping[str, Any]) -> None:
        here = self._on_model
        if state.get("stripped"):
            for name, weight in here.masks.items():
                weight.write(weight.parameter.detach() != 0, state.get("thresholds", {}).get(name, 0.0))
        else:
            for name, weight in here.masks.items():
                device = weight.parameter.device
                weight.memory = {key: value.to(device) for key, value in state["memory"].get(name, {}).items()}
                dense = state.get("dense", {}).get(name)
                if dense is not None and self.reversible:
                    with torch.no_grad():
                        weight.parameter.copy_(dense)
                    weight.dense = dense.to(device)
                weight.write(state["masks"][name].to(device), state["thresholds"][name])
        here.step = state["last_update"]

    def _detach(self) -> None:
        self.masks.hide()
        self._model = None


class _Attached:
    """What a pruner knows while it is on a model."""

    def __init__(self, masks: Masks, found: Found, parameters: int, length: int | None) -> None:
        self.masks = masks
        self.found = found
        self.parameters = parameters
        self.length = length
        self.competitions: list[Competition] = []
        self.step: int | None = None
        self.changed = 0.0
