"""What learned masks know while they are on a model: units, logits, the hard masks of now; saved and restored."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.learned.compiled import Hooks
from lightning_prune.learned.giver import Giver
from lightning_prune.learned.hard_masks import HardMasks
from lightning_prune.learned.hardening import harden, harden_copies
from lightning_prune.learned.learn_step import check_weights, learn
from lightning_prune.learned.saved_masks import masks_to_save, restored_masks
from lightning_prune.learned.sites import Ideas, logits_of, sites_of
from lightning_prune.learned.state_schema import check_learned
from lightning_prune.pruning import checks
from lightning_prune.pruning.header import header, still_due
from lightning_prune.pruning.saved_window import check_final
from lightning_prune.pruning.state_schema import check_position
from lightning_prune.pruning.waiting import Trained, Waiting, warn_of_late
from lightning_prune.pruning.weight_reports import weight_reports
from lightning_prune.ranking import on_host
from lightning_prune.report import Report
from lightning_prune.schedule import Polynomial, Schedule
from lightning_prune.steps import progress

_WHOLE_RUN = Polynomial(0.0, 0.0, 1.0, 0.004)
"""The window without a schedule; no sparsity is asked for."""
_BINS = 20  # of the histograms of probabilities in the history


class Learning:
    """Learned masks on one model, with the schedule in whole steps.

    Attributes:
        masks: the hard masks by name of the tensors that units slice; before `finish` they are only shown.
        schedule: resolved for a run of `length` optimizer steps.
        step: the step of the latest update, None before the first.
        changed: the share of all mask entries that the latest update changed.
        waits: whether the schedule has not begun, and nothing is masked yet.
        finished: whether the hard masks are in the weights, and nothing is learned any more.
        history: of each update the step, the share of units undecided, and a histogram of each group's probabilities.

    Raises:
        ValueError: nothing to prune, or a window that cannot be met.
    """

    def __init__(
        self, ideas: Ideas, model: nn.Module, length: int | None, total_steps: int | None, trial: bool, trained: Trained
    ) -> None:
        self._ideas = ideas
        self.length = length
        self.schedule: Schedule = (ideas.schedule or _WHOLE_RUN).resolve(length)
        if not trial:
            checks.check_window(self.schedule, total_steps)
        self._sites = sites_of(ideas, Waiting(model, trained))
        self._parameters = sum(p.numel() for p in model.parameters())
        self.masks = self._sites.masks
        self.step: int | None = None
        self.changed = 0.0
        self.finished = False
        self.history: list[dict[str, Any]] = []
        self._final: dict[str, Tensor] | None = None
        self.logits = logits_of(ideas, self._sites)
        self._scheduled = ideas.schedule is not None
        self.waits = self.logits.step < self.schedule.begin_step
        self._hard = HardMasks(self._sites, self.logits, ideas.threshold, self._scheduled)
        self._hooks = Hooks()
        self._hook()

    def resolve(self, length: int | None) -> None:
        """Resolve the schedule for another length. Raises ValueError if it does not fit; nothing is changed then."""
        before, self.schedule = self.schedule, (self._ideas.schedule or _WHOLE_RUN).resolve(length)
        self.step, self.length = still_due(self.step, before, self.schedule), length
        self.waits = self.logits.step < self.schedule.begin_step

    # What layers read

    def forget_earlier(self, number: int) -> None:
        """Forget the gradient of a group where that of its weights was: it is of a backward pass before."""
        if self._sites.owner(number).grad is None:  # by zero_grad
            self.logits.values[number].grad = None

    def settled(self, number: int, weight: Tensor | None = None) -> Tensor:
        """Return by what the units of a group are multiplied in evaluation, (units,)."""
        self.settle()
        return self._factors(number, weight) * self._hard.keeps[number].to(self.logits.values[number].device)

    def _factors(self, number: int, weight: Tensor | None = None) -> Tensor:
        """Return by what units that are kept are multiplied: by 1 before a schedule's first update."""
        if self._scheduled and self.step is None:
            return torch.ones(self._sites.sizes[number], device=self.logits.values[number].device)
        return self.logits.settled(number, weight)

    def follow(self) -> None:
        """Act on the parameters that lie in the model now, in the modules that do."""
        if self.masks.follow() and not self.finished:
            self.unhook()
            self._hook()
            self.logits.weights_are([self._sites.owner(number) for number in range(len(self._sites.sizes))])

    # Steps

    def numbers(self, optimizer: Optimizer | None) -> list[int]:
        """Return the groups whose weights an optimizer steps, or all."""
        if optimizer is None:
            return list(range(len(self._sites.sizes)))
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [number for number in range(len(self._sites.sizes)) if id(self._sites.owner(number)) in stepped]

    def learn(self, numbers: Sequence[int], loss_scale: float) -> Tensor | None:
        """Step the logits of groups, and return the regularizer's value; see `learn_step.learn`."""
        value = learn(self.logits, self._penalty, numbers, loss_scale, self._ideas.task_share)
        if value is not None and not self._scheduled:
            self._hard.outdate()
        return value

    def _penalty(self) -> Tensor:
        regularizer = self._ideas.mask_regularizer
        if regularizer is None:
            return torch.zeros((), requires_grad=True)
        probabilities = self.logits.probabilities()
        expected = self._sites.expected(probabilities)
        asked = self.schedule.sparsity(max(self.logits.step, int(self.schedule.begin_step)))
        return regularizer(torch.cat(probabilities), expected, asked)

    def update(self, step: int, optimizers: Iterable[Optimizer]) -> bool:
        """Show the hard masks of now if an update is due; at the schedule's end put them into the weights."""
        begin, end = self.schedule.begin_step, self.schedule.end_step
        warn_of_late(self._sites.waiting, tuple(optimizers), self._sites.skipped)
        stepped = step != self.logits.step
        self.logits.now_at(step, progress(step, begin, end))
        self.waits = self.logits.step < self.schedule.begin_step
        due = self.schedule.last_update(step)
        if due is None or (self.step is not None and due <= self.step):
            if stepped and self.follows_weights:
                self._hard.outdate()
                self.settle()  # to keep to the budget between updates, too, while the weights move
            return False
        self.check_finite()
        self.step = due
        if self.finished:
            return False
        self._note(step)
        self._hard.outdate()
        self.settle()
        self.changed = self._hard.share_changed()
        if self._scheduled and due >= end:
            self.finish(tuple(optimizers))
        return True

    @property
    def follows_weights(self) -> bool:
        """Whether hard masks move with the weights now, also between updates."""
        return self.logits.of_weights and self.step is not None and self._scheduled and not self.finished

    def check_finite(self) -> None:
        """Raise ValueError if a weight under a mask is not finite; the message names it."""
        check_weights({name: weight.parameter for name, weight in self.masks.items()})

    def _note(self, step: int) -> None:
        bins = {name: p.histc(_BINS, 0.0, 1.0).int() for name, p in self._probabilities().items()}
        counts = {name: some.tolist() for name, some in zip(bins, on_host([*bins.values()]), strict=True)}
        self.history.append({"step": step, "undecided": self.undecided(), "counts": counts})

    def settle(self) -> None:
        """Have the hard masks be those of now."""
        self._hard.settle(self.schedule, self.step)

    # The end

    def finish(self, optimizers: Sequence[Optimizer] = ()) -> None:
        """Put the hard masks into the weights: the model alone computes from here on what it did in evaluation."""
        if self.finished:
            return
        self.settle()
        self._final = dict(zip(self._sites.names, self.logits.final(self._hard.keeps), strict=True))
        harden(self._sites, self._all_factors(), optimizers)
        self.finished = True
        self.unhook()

    def finish_copies(self, saved: Any) -> dict[str, Any]:
        """Do what `finish` does to copies of the model's tensors in nested dicts, and return what they were."""
        if self.finished:
            self.masks.apply_to(saved)
            return {}
        self.settle()
        fixed = self._sites.factors(self._all_factors())

        def factors(name: str, tensor: Tensor) -> Mapping[str, Any]:
            if not self.logits.of_weights:
                return fixed
            number = self._sites.names.index(name)
            weight = tensor.to(self._sites.owner(number).device)  # it has values, and so factors, of its own
            return {name: self._factors(number, weight)}

        return harden_copies(self._sites, factors, saved)

    def _all_factors(self) -> list[Tensor]:
        return [self._factors(number) for number in range(len(self._sites.sizes))]

    def _hook(self) -> None:
        self.logits.readers_are_new()
        self._hooks.put(self._sites.hook(Giver(self, self._sites.sizes)))

    def unhook(self) -> None:
        """Take the hooks off."""
        self._hooks.remove()

    # What is said of it

    def report(self) -> Report:
        """Return the numbers of now: before `finish`, zeros are those that it would leave."""
        self.settle()
        left = None if self.finished else attrgetter("mask")
        weights = weight_reports(self.masks, self._sites.counted, left)
        size = sum(w.size for w in weights)
        asked = final = sum(w.zeros for w in weights) / size
        if self._scheduled:
            asked = 0.0 if self.step is None else self.schedule.sparsity(self.step)
            final = self.schedule.final_sparsity
        sites = self._sites
        most = sites.most / size
        return Report(
            weights, sites.skipped, asked, final, self._parameters, self.step, sites.grain, self._scheduled, most
        )

    def undecided(self) -> float:
        """Return the share of units with .05 < p < .95."""
        p = torch.cat(list(self._probabilities().values()))
        return float(((p > 0.05) & (p < 0.95)).float().mean())

    def probabilities(self) -> dict[str, Tensor]:
        """Return every group's probabilities, by the first weight that computes its units."""
        return {name: p.cpu() for name, p in self._probabilities().items()}

    def _probabilities(self) -> dict[str, Tensor]:
        if self._final is not None:
            return self._final
        return {name: p.detach() for name, p in zip(self._sites.names, self.logits.probabilities(), strict=True)}

    # State

    def header(self) -> dict[str, Any]:
        """Return the part of the state that is a few numbers."""
        state = header(self.schedule, self.length, self.step) | {"finished": self.finished}
        return state if self._scheduled else state | {"sparsity": None, "final_sparsity": None}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs; the weights too while they are not those of a checkpoint's files."""
        self.settle()
        state = self.header() | self.logits.state_dict() | {"masks": masks_to_save(self.masks, self.finished)}
        state["thresholds"] = {name: float(weight.threshold) for name, weight in self.masks.items()}
        if self.finished:
            state["probabilities"] = dict(self._final or {})
        else:
            state["keeps"], state["history"] = list(self._hard.keeps), copy.deepcopy(self.history)
            state["dense"] = {name: w.parameter.detach().clone() for name, w in self.masks.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError if it is of other units or damaged; nothing is changed then."""
        shapes = {name: tuple(weight.mask.shape) for name, weight in self.masks.items()}
        check_learned(state, shapes, self.logits.state_dict(), [tuple(keep.shape) for keep in self._hard.keeps])
        schedule = (self._ideas.schedule or _WHOLE_RUN).resolve(state["total_steps"] or self.length)
        check_position(state, schedule)
        if self._scheduled:
            check_final(state, schedule)
        if state.get("stripped"):
            for decision in self._sites.from_zeros():
                decision.weight.write(decision.mask, state["thresholds"].get(decision.weight.target.name, 0.0))
            self.finished, self.step, self._final = True, state["last_update"], dict(state["probabilities"])
            self._hard.restored(stale=False)
            self.unhook()
            return
        masks = restored_masks(state, self._sites, self._hard.keeps)
        self.logits.load_state_dict(state)
        self.resolve(state["total_steps"] or self.length)
        self.step, self.finished = state["last_update"], state["finished"]
        for name, weight in self.masks.items():
            if self.finished:
                weight.write(masks[name], state["thresholds"][name])
            else:
                weight.propose(masks[name], state["thresholds"][name])
                with torch.no_grad():
                    weight.parameter.copy_(state["dense"][name])
        if self.finished:
            self._final = {name: p.cpu() for name, p in state["probabilities"].items()}
            self.unhook()
        else:
            self._hard.keeps, self.history = [keep.cpu() for keep in state["keeps"]], copy.deepcopy(state["history"])
        self._hard.restored(stale=not self.finished and not self._scheduled)  # T may be another
