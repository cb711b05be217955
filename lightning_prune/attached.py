"""What a pruner knows while it is on a model: masks, competitions, position; read as a report, saved and restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_prune import checks
from lightning_prune.competition import Competition, Decision
from lightning_prune.masks import Masks, count
from lightning_prune.protocols import Criterion, Pattern, Schedule, Scope, Selection, SitedPattern
from lightning_prune.report import Report, WeightReport
from lightning_prune.targets import Targets, groups

STATE_VERSION = 1


def check_version(state: Mapping[str, Any]) -> None:
    """Raise ValueError if a saved state is of a newer version, or none at all."""
    version = state.get("version")
    if not isinstance(version, int) or version > STATE_VERSION:
        raise ValueError(
            f"the pruning state has version {version!r}, this lightning_prune reads up to {STATE_VERSION}: "
            "update lightning_prune to resume from this checkpoint"
        )


class Ideas(Protocol):
    """What a pruner composes."""

    schedule: Schedule
    criterion: Criterion
    pattern: Pattern | SitedPattern
    scope: Scope
    selection: Selection
    targets: Targets
    reversible: bool


class Attached:
    """A pruner's ideas on one model, with the schedule in whole steps.

    Attributes:
        masks: the masked weights by name.
        schedule: resolved for a run of `length` optimizer steps.
        step: the step of the latest update, None before the first.
        changed: the share of all mask entries that the latest update changed.

    Raises:
        ValueError: nothing to prune, or a window that cannot be met.
    """

    def __init__(
        self, ideas: Ideas, model: nn.Module, length: int | None, total_steps: int | None, trial: bool
    ) -> None:
        self._ideas = ideas
        self._found = ideas.targets.find(model)
        self._parameters = sum(p.numel() for p in model.parameters())
        self.step: int | None = None
        self.changed = 0.0
        schedules = self._resolve(length)
        if not trial:
            pruning = [schedule for schedule in (self.schedule, *schedules.values()) if schedule.final_sparsity]
            checks.check_window(pruning[0] if pruning else self.schedule, total_steps)
        self.masks = Masks(self._found.targets, ideas.reversible)
        try:
            self._compete(schedules)
        except BaseException:
            self.masks.hide()
            raise

    def _resolve(self, length: int | None) -> dict[str | None, Schedule]:
        """Set the schedule in whole steps, and return that of each sparsity rule."""
        self._length = length
        self.schedule = self._ideas.schedule.resolve(length)
        finals = self._ideas.targets.sparsity
        return {rule: checks.with_final(self.schedule, rule, finals) for rule, _ in groups(self._found)}

    def _compete(self, schedules: Mapping[str | None, Schedule]) -> None:
        """Set up a competition for the targets without a rule of their own, and one for each rule."""
        ideas = self._ideas
        self._competitions = [
            Competition(
                schedules[rule],
                {name: [self.masks[target.name] for target in members] for name, members in by_group.items()},
                ideas.criterion,
                ideas.pattern,
                ideas.scope,
                ideas.selection,
                ideas.reversible,
            )
            for rule, by_group in groups(self._found)
        ]
        for competition in self._competitions:
            competition.check_pattern()

    def update(self, step: int, optimizers: Iterable[Optimizer]) -> bool:
        """Update the masks if an update is due, and return whether one was."""
        due = self.schedule.last_update(step)
        if due is None or (self.step is not None and due <= self.step):
            return False
        changed = sum(d.weight.write(d.mask, d.threshold) for d in self._decide(due))
        self.step, self.changed = due, changed / sum(competition.size for competition in self._competitions)
        if changed:
            stepping = tuple(optimizers)
            for weight in self.masks.values():
                weight.apply_to_moments(stepping)
        return True

    def _decide(self, step: int) -> list[Decision]:
        remembered = {name: dict(weight.memory) for name, weight in self.masks.items()}
        try:
            return [decision for competition in self._competitions for decision in competition.decide(step)]
        except BaseException:
            for name, weight in self.masks.items():
                weight.memory = remembered[name]
            raise

    def report(self) -> Report:
        """Return the numbers of now."""
        asked = final = 0.0
        finals: dict[str, float] = {}
        for competition in self._competitions:
            asked += competition.size * (0.0 if self.step is None else competition.schedule.sparsity(self.step))
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
            for name, weight in self.masks.items()
        ]
        total = sum(weight.size for weight in weights)
        return Report(weights, self._found.skipped, asked / total, final / total, self._parameters, self.step)

    def header(self) -> dict[str, Any]:
        """Return the part of the state that is a few numbers."""
        return {
            "version": STATE_VERSION,
            "total_steps": self._length,
            "begin_step": self.schedule.begin_step,
            "end_step": self.schedule.end_step,
            "last_update": self.step,
            "sparsity": 0.0 if self.step is None else self.schedule.sparsity(self.step),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
        state = self.header() | {
            "masks": {name: weight.mask for name, weight in self.masks.items()},
            "thresholds": {name: float(weight.threshold) for name, weight in self.masks.items()},
            "memory": {name: dict(weight.memory) for name, weight in self.masks.items() if weight.memory},
        }
        if self._ideas.reversible:
            state["dense"] = {name: weight.ranked() for name, weight in self.masks.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError if it is of other weights; nothing is changed then."""
        if not state.get("stripped"):
            checks.check_masks({name: tuple(w.mask.shape) for name, w in self.masks.items()}, state["masks"])
        self._compete(self._resolve(state["total_steps"] or self._length))
        for name, weight in self.masks.items():
            if state.get("stripped"):
                weight.write(weight.parameter.detach() != 0, state.get("thresholds", {}).get(name, 0.0))
                continue
            device = weight.parameter.device
            weight.memory = {key: value.to(device) for key, value in state["memory"].get(name, {}).items()}
            dense = state.get("dense", {}).get(name)
            if dense is not None and self._ideas.reversible:
                with torch.no_grad():
                    weight.parameter.copy_(dense)
                weight.dense = dense.to(device)
            weight.write(state["masks"][name].to(device), state["thresholds"][name])
        self.step = state["last_update"]
