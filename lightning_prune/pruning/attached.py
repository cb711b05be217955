"""What a pruner knows while it is on a model: masks, their updates, position; read as a report, saved and restored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.budget import Price
from lightning_prune.masks import MaskedWeight, Masks, write_all
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning import checks, saved_masks
from lightning_prune.pruning.chosen import Chosen
from lightning_prune.pruning.collecting import check_collected
from lightning_prune.pruning.correcting import corrected, put_in
from lightning_prune.pruning.header import header, still_due
from lightning_prune.pruning.held_update import HeldUpdate, share_held, take_zeros
from lightning_prune.pruning.ideas import Ideas, needing, updates_of
from lightning_prune.pruning.looking import Looking
from lightning_prune.pruning.measured import Measured, measure, speedup_now
from lightning_prune.pruning.memories import memory_here, whole_memory
from lightning_prune.pruning.reconstructing import chooser
from lightning_prune.pruning.regrowing import check_until
from lightning_prune.pruning.regularizing import Regularizing
from lightning_prune.pruning.reporting import report_of
from lightning_prune.pruning.saved_window import check_saved
from lightning_prune.pruning.state_schema import check_body, check_position, check_thresholds
from lightning_prune.pruning.telling import Telling
from lightning_prune.pruning.turns import note_of_turns, take_turns
from lightning_prune.pruning.units_found import coupling_of, price_of
from lightning_prune.pruning.waiting import Trained
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.regularizer import Regularizer
from lightning_prune.report import Report
from lightning_prune.schedule import HoldingSchedule, Schedule, ToldSchedule, TurnSchedule
from lightning_prune.shards import whole_on_host
from lightning_prune.targets import Target, groups


class Attached:
    """A pruner's ideas on one model, with the schedule in whole steps.

    Attributes:
        masks: the masked tensors by name.
        counted: the names of those that are weights of the rule; the others, biases and norms, go with units.
        length: how many optimizer steps the run takes, None where nobody knows.
        schedule: resolved for that length.
        step: the step of the latest update, None before the first.
        changed: the share of all mask entries that the latest update changed.
        measured: what the budget goes by, where it is measured.

    Raises:
        ValueError: nothing to prune, a window that cannot be met, or weights whose layout an idea needs and none says.
    """

    def __init__(
        self,
        ideas: Ideas,
        model: nn.Module,
        length: int | None,
        total_steps: int | None,
        trial: bool,
        trained: Trained,
        measured: Measured | None = None,
    ) -> None:
        self._ideas = ideas
        self._criterion = chooser(ideas)
        self._holds = isinstance(ideas.schedule, HoldingSchedule)
        coupling = coupling_of(ideas.pattern, model, ideas.units_found)
        self._chosen = Chosen(ideas.targets, coupling, model, trained, self._in_need, self._holds)
        self._parameters = sum(p.numel() for p in model.parameters())
        self.step: int | None = None
        self.changed = 0.0
        self._model = model
        self._looking = Looking(ideas, self._criterion, self._holds)
        self._regularizing = Regularizing(ideas.regularizer)
        self._price: Price | None = None
        self._budget, self._asked = ideas.budget, ideas.schedule  # as far as nothing is measured
        self._priced = False
        self._at = 0  # how many optimizer steps are completed
        self._stride: int | None = None  # how many more there are each time: as many as optimizers step in a batch
        self.telling: Telling | None = None
        self.measured: Measured | None = None
        schedules = self._resolve(length)
        if not trial:
            pruning = [schedule for schedule in (self.schedule, *schedules.values()) if schedule.final_sparsity]
            checks.check_window(pruning[0] if pruning else self.schedule, total_steps)
            regrowth = None if ideas.regrowth is None else ideas.regrowth.resolve(length)
            check_until(regrowth, self.schedule, total_steps)
        if self._chosen.units is not None:
            self._know(measured or measure(ideas, model, self._chosen.units))
            schedules = self._resolve(length)
        self.masks = Masks(self._chosen.targets, ideas.reversible, model)
        self.counted = self._chosen.counted
        try:
            check_collected(self._criterion, ideas.pattern, ideas.regularizer, self.masks.values())
            self.masks.lead(self._chosen.followers)
            if isinstance(ideas.schedule, ToldSchedule):
                checks.check_told_masks(self.masks.split, ideas.schedule)
                self.telling = Telling(model, self.masks)
            self._set_up_updates(schedules)
        except BaseException:
            self.release()
            raise

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out of copies and pickles, as the masks do: they hold on to the parameters that they have."""
        return vars(self) | {"_model": None}

    def _resolve(self, length: int | None) -> dict[str | None, Schedule]:
        """Set the schedule in whole steps, and return that of each sparsity rule."""
        self.schedule = self._asked.resolve(length)
        self.length = length
        if self.telling is not None:
            self.schedule = self.telling.schedule(self.schedule)
        return self._by_rule()

    def _know(self, measured: Measured | None) -> None:
        """Go by what was measured. Raises ValueError if it does not go with the ideas; nothing is changed then."""
        if measured is not None:
            self._budget, self._asked = measured.taken_by(self._ideas)
            self.measured, self._priced = measured, False

    def tell(self, step: int, value: float) -> None:
        """Take note of a validation's metric; what follows from it happens at the next update."""
        if self.telling is not None:
            self.telling.tell(step, value, self._asked.resolve(self.length))
            self._set_up_updates(self._resolve(self.length))

    def settle(self, step: int, optimizers: Iterable[Optimizer]) -> bool:
        """End with the weights of the last good validation, where a schedule is told of them."""
        if self.telling is None:
            return False
        moved = self.telling.settle(step, optimizers)
        self._set_up_updates(self._resolve(self.length))
        self.step = self.schedule.last_update(step)
        self.masks.apply_to_followers()
        return moved

    def resolve(self, length: int) -> None:
        """Resolve the schedule for another length. Raises ValueError if it does not fit; nothing is changed then."""
        before = self.schedule
        self._set_up_updates(self._resolve(length))
        self.step = still_due(self.step, before, self.schedule)

    def _by_rule(self) -> dict[str | None, Schedule]:
        finals = self._ideas.targets.sparsity
        return {rule: checks.with_final(self.schedule, rule, finals) for rule, _ in groups(self._chosen.found)}

    def _go_on(self) -> bool:
        """Prune from here on what has begun to train, and return whether there is anything."""
        new = [target for target in self._chosen.targets if target.name not in self.masks]
        if new:
            self.masks.add(new, self._ideas.reversible)
            self._priced = False
            self.masks.lead(self._chosen.followers)
            self.counted = self._chosen.counted
            self._set_up_updates(self._by_rule())
            self.hold({target.name for target in new})
        return bool(new)

    def hold(self, names: Collection[str] | None = None) -> None:
        """Where the schedule holds zeros: read the masks of all weights, or of those of these names, off the weights.

        Raises:
            ValueError: none of all has a zero, or the zeros are not those of the pattern; no mask is written then.
        """
        if take_zeros(self._updates, names):
            self._set_up_updates(self._by_rule())

    def _set_up_updates(self, schedules: Mapping[str | None, Schedule]) -> None:
        """Set up the update of the targets without a rule of their own, and one for each rule."""
        given = (self._ideas, self._criterion, self._chosen, self.masks, schedules, self._price_now())
        self._updates: list[Any] = list(updates_of(*given))
        if isinstance(self._ideas.schedule, HoldingSchedule):
            counted = [weight for name, weight in self.masks.items() if name in self.counted]
            self.schedule = self._ideas.schedule.holding(share_held(counted))
            every = tuple(self.masks.values())
            self._updates = [
                HeldUpdate(self.schedule, update, self._ideas.pattern, every, counted) for update in self._updates
            ]
        if isinstance(self.schedule, TurnSchedule):
            self._updates, self.schedule = take_turns(self._updates, self.schedule, list(self.masks))
        for update in self._updates:
            update.check_pattern()
        groups = self._chosen.units.groups if self._chosen.units else ()
        self._looking.set_up(self._updates, groups, self._model, self.masks, self.length)
        self._look()

    def _look(self) -> None:
        self._looking.look(self.schedule, self._at + (self._stride or 1) - 1, self.step)

    def observe(self, weights: Sequence[MaskedWeight] | None, grad_scale: float) -> None:
        """Have the criterion see what a step has brought: gradients are complete, and not masked yet.

        Args:
            weights: those that are about to be stepped; None for all.
            grad_scale: the factor on the gradients.
        """
        self._looking.observe(self.masks.values() if weights is None else weights, grad_scale)

    def release(self) -> None:
        """Take all off the model that is not its own, but leave the zeros."""
        self._looking.remove()
        self.masks.hide()

    def _in_need(self, targets: Sequence[Target]) -> Mapping[str, Sequence[Target]]:
        return needing(self._ideas, self._criterion, targets)

    def _price_now(self) -> Price | None:
        ideas = self._ideas
        if not self._priced and self._chosen.units is not None and isinstance(ideas.pattern, CoupledPattern):
            shapes = {name: tuple(weight.shape) for name, weight in self.masks.items()}
            self._price = price_of(self._budget, ideas.pattern, self._model, ideas.units_found, shapes)
            self._priced = True
        return self._price

    def follow(self) -> None:
        """Act on the parameters that lie in the model now."""
        self.masks.follow()

    def update(self, step: int, optimizers: Iterable[Optimizer]) -> bool:
        """Update the masks if an update is due, and return whether one was."""
        stepping = tuple(optimizers)
        woken = self._chosen.look(stepping) and self._go_on()
        if self._stride is None:  # a first step may come from anywhere, but for that of a run
            self._stride = 1 if step else max(1, len(stepping))
        elif step > self._at:
            self._stride = step - self._at
        due, self._at = self.schedule.last_update(step), step
        if self.telling is not None and self.telling.owes:
            if getattr(self.schedule, "back", False):
                self.telling.go_back(stepping)
            self.telling.owes = False
        if due is None or (self.step is not None and due <= self.step and not woken):
            self._look()
            return False
        new = self.step is None or due > self.step
        if not self._looking.ready(step, due, new):
            self._look()
            return False
        decisions = self._decide(due, new)
        for update in self._updates:
            update.remember(due)
        better = corrected(self._criterion, decisions)
        returned = self._looking.returned(decisions, self.masks.values(), stepping)
        changed = max(returned, write_all([(d.weight, d.mask, d.threshold) for d in decisions]))
        put_in(better)
        del decisions, better
        self._looking.forget()
        self.step, self.changed = due, changed / sum(weight.size for weight in self.masks.values())
        self.masks.apply_to_followers()
        if changed or self._holds:
            for weight in self.masks.values():
                weight.apply_to_moments(stepping)
        if self._regularizing.foresees:
            self._foresee()
        self._look()
        return True

    @property
    def put_off(self) -> str:
        """Why an update that was due has not been made; empty where none was put off."""
        due = self.schedule.last_update(self._at)
        if due is None or (self.step is not None and due <= self.step) or not self._looking.lacking:
            return ""
        return f"the update of step {due} was not made, since {self._looking.lacking}"

    def _decide(self, step: int, exchanges: bool = False) -> list[Decision]:
        remembered = self._memories()
        try:
            decisions = [decision for update in self._updates for decision in update.decide(step)]
            return self._looking.exchanged(decisions, step) if exchanges else decisions
        except BaseException:
            self._remember(remembered)
            raise

    def _foresee(self) -> None:
        """Find what would go if the final sparsity were asked for now."""
        remembered = self._memories()
        ends = self._decide(int(self.schedule.end_step))
        self._remember(remembered)
        self._regularizing.foresee(ends)

    def _memories(self) -> dict[str, dict[str, Tensor]]:
        return {name: dict(weight.memory) for name, weight in self.masks.items()}

    def _remember(self, memories: Mapping[str, dict[str, Tensor]]) -> None:
        for name, weight in self.masks.items():
            weight.memory = memories[name]

    def regularizers(self, weights: Sequence[MaskedWeight]) -> list[tuple[MaskedWeight, Regularizer]]:
        """Return which regularizer acts on which of the weights."""
        norms = None if self._chosen.units is None else self._chosen.units.norms
        return self._regularizing.of(weights, self.counted, norms, self.schedule, self.step)

    def report(self, counting: bool = True) -> Report:
        """Return the numbers of now; without counting, those of the masks."""
        return report_of(
            self._ideas,
            self._updates,
            self.masks,
            self._chosen,
            counted=self.counted,
            parameters=self._parameters,
            step=self.step,
            measured=self.measured,
            notes=[*note_of_turns(self._updates, self.schedule), *self._looking.notes(self.schedule)],
            counting=counting,
        )

    def with_speedup(self, report: Report) -> Report:
        """Return a last report with how fast the model is without its dead units, where a speed-up was asked for."""
        if report.spent is None or self.measured is None or self.measured.faster is None or self.step is None:
            return report
        pattern = self._ideas.pattern
        assert isinstance(pattern, CoupledPattern)
        keeps = [keep for update in self._updates for keep in update.alive()]
        groups = [group for update in self._updates for group in update.groups]
        found = speedup_now(self._model, self._budget, pattern, groups, keeps)
        return replace(report, spent=replace(report.spent, speedup=found, speedup_asked=self.measured.faster.asked))

    def header(self) -> dict[str, Any]:
        """Return the part of the state that is a few numbers, and what was measured."""
        known = {} if self.measured is None else {"measured": self.measured.to_dict()}
        return header(self.schedule, self.length, self.step) | known

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs beside the weights. Pruned entries are zero then."""
        state = self.header() | {
            "masks": saved_masks.to_save(self.masks),
            "thresholds": {name: float(weight.threshold) for name, weight in self.masks.items()},
            "memory": {name: whole_memory(w, self._criterion) for name, w in self.masks.items() if w.memory},
        }
        state |= self._looking.state_dict(self._at, self._stride)
        if self.telling is not None:
            state["told"] = self.telling.state_dict()
        going = self._regularizing.state_dict(self.masks)
        if going:
            state["going"] = going
        if self._ideas.reversible:
            state["dense"] = {name: whole_on_host(weight.ranked(), weight.shard) for name, weight in self.masks.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, with masks read off the weights that were saved with it and are in the model by now.

        Raises:
            ValueError: it is damaged, of other weights, past the window, or the weights are not there; no mask moves.
        """
        known = state.get("thresholds")
        if isinstance(known, Mapping) and self._chosen.wake(known):  # they trained when it was saved
            self._go_on()
        shapes = {name: tuple(weight.shape) for name, weight in self.masks.items()}
        (check_thresholds if state.get("stripped") else check_body)(state, shapes)
        length = state["total_steps"] or self.length
        if self.telling is not None and "told" in state:
            self.telling.load_state_dict(state["told"])
        if self.measured is not None and "measured" in state:
            self._know(Measured.from_dict(state["measured"]))
        schedule = self._asked.resolve(length)
        schedule = schedule if self.telling is None else self.telling.schedule(schedule)
        check_position(state, schedule)
        if not self._holds and self.telling is None:  # these ask for what the state has
            check_saved(state, schedule, self._ideas.reversible)
        here = {name: weight.values.detach() for name, weight in self.masks.items()}
        shards = {name: weight.shard for name, weight in self.masks.items()}
        masks = {} if state.get("stripped") else saved_masks.from_weights(state, here, shards)
        self._set_up_updates(self._resolve(length))
        thresholds = state["thresholds"]
        for update in self._updates if state.get("stripped") else ():
            for decision in update.from_zeros():
                decision.weight.write(decision.mask, thresholds.get(decision.weight.target.name, 0.0))
        for name, weight in self.masks.items() if not state.get("stripped") else ():
            saved = state.get("memory", {}).get(name, {})
            weight.memory = memory_here(weight, self._criterion, saved)
            dense = state.get("dense", {}).get(name)
            if dense is not None and self._ideas.reversible:
                dense = weight.piece(dense).to(weight.values.device)
                with torch.no_grad():
                    weight.values.copy_(dense)
                weight.dense = dense.clone()
            weight.write(masks.pop(name), thresholds[name])
        self.masks.apply_to_followers()
        if self._holds:  # what is held is what the state has masked
            self._set_up_updates(self._by_rule())
        self._regularizing.load_state_dict(state.get("going", {}), self.masks)
        self.step = state["last_update"]
        self._at, self._stride = state.get("step", self.step or 0), state.get("stride")
        self._looking.load_state_dict(state)
        self._look()
