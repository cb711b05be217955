"""Weights that return: their gradients before an update, and the masks after the exchange at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_prune.criterion import CorrectingCriterion
from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.pattern import CoupledPattern, Pattern, SitedPattern
from lightning_prune.pruning.exchange import Exchange, exchanged
from lightning_prune.pruning.guarded import living_units
from lightning_prune.pruning.patience import PATIENCE, Patience
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.ranking import count
from lightning_prune.regrowth import Regrowth
from lightning_prune.schedule import HoldingSchedule, Schedule, ToldSchedule
from lightning_prune.shards import each, grad_of, whole, whole_on_host

_VERBS = ("share", "window", "resolve", "__call__")


class Regrowing:
    """A regrowth on the weights of a model.

    Args:
        regrowth: in whole steps.
        pattern: what lives and dies together.
        masks: the weights.

    Attributes:
        regrowth: the same; another one where the run's length has changed.
        sums: name of a weight -> the sum of its gradients since it is looked at.

    Raises:
        ValueError: units of a weight are not of one size, so that numbers of weights could not be kept.
    """

    def __init__(self, regrowth: Regrowth, pattern: Pattern | SitedPattern, masks: Masks) -> None:
        self.regrowth = regrowth
        self.sums: dict[str, Tensor] = {}
        self._pattern = pattern
        self._masks = masks
        self._on = False
        self._patience = Patience()
        self.check()

    def check(self) -> None:
        """Raise ValueError, which names the weight, if its units are not of one size."""
        for name, weight in self._masks.items():
            pattern = self._pattern_of(name)
            if pattern.single:
                continue
            shape = weight.parts(weight.canonical(torch.empty(weight.shape, device="meta")))[0].shape
            if isinstance(pattern.weights_per_unit(shape), Tensor):
                raise ValueError(
                    f"regrowth={self.regrowth} exchanges units for as many others, and those of {pattern} in '{name}', "
                    f"of shape {tuple(weight.shape)}, are not of one size: use sizes that divide it, or leave it out "
                    "by Targets(exclude=...)"
                )

    def _pattern_of(self, name: str) -> Pattern:
        return self._pattern.at(name) if isinstance(self._pattern, SitedPattern) else self._pattern

    def look(self, schedule: Schedule, step: int, last: int | None) -> None:
        """Look at the steps behind `step` completed ones if they lie before an update that exchanges weights."""
        update = schedule.last_update(step + self.regrowth.window)
        due = update is not None and (last is None or update > last)
        self._on = due and update is not None and self.regrowth.share(update) > 0.0
        if not self._on:
            self.sums = {}

    @torch.no_grad()
    def step(self, weights: Iterable[MaskedWeight], grad_scale: float) -> None:
        """Add the gradients of a step to the sums. They are complete, and not masked yet.

        Args:
            weights: those whose optimizer is about to step.
            grad_scale: the factor on the gradients by a loss scaler, which leaves the step out if they overflow.
        """
        for weight in weights if self._on else ():
            name, grad = weight.target.name, grad_of(weight.parameter)
            if grad is None:
                continue
            grad = grad.to_dense() if grad.layout != torch.strided else grad
            grad = grad.detach().to(torch.promote_types(grad.dtype, torch.float32), copy=True)
            if grad_scale != 1.0:
                grad = torch.where(torch.isfinite(grad).all(), grad / grad_scale, torch.zeros_like(grad))
            self.sums[name] = self.sums[name].add_(grad) if name in self.sums else grad

    def ready(self, step: int, due: int) -> bool:
        """Return whether the gradients of all that trains were seen, if the update that is due exchanges weights.

        Raises:
            ValueError: some still were not after `PATIENCE` steps; the message names them.
        """
        if not self.regrowth.share(due):
            return True
        unseen = [n for n, w in self._masks.items() if w.parameter.requires_grad and n not in self.sums]
        if not unseen:
            return True
        if self._patience.lasts(step):
            return False
        names = ", ".join(f"'{name}'" for name in unseen)
        raise ValueError(
            f"{self.regrowth} has seen no gradient of {names} in {PATIENCE} steps, and the update of step {due} needs "
            "it: leave out what the loss does not reach by Targets(exclude=...), and call before_step(optimizer) after "
            "each backward"
        )

    def exchanged(self, decisions: Sequence[Decision], step: int) -> list[Decision]:
        """Return the masks of an update with some weights of each layer exchanged. Writes to nothing.

        Raises:
            ValueError: a gradient or a weight is not finite; the message names it.
        """
        share = self.regrowth.share(step)
        seen = [d for d in decisions if d.weight.target.name in self.sums] if share else []
        with torch.no_grad():
            layers = [self._layer(d) for d in seen]
            masks = [self._mask(d, keep) for d, keep in zip(seen, exchanged(layers, share), strict=True)]
        new = {id(d.weight): replace(d, mask=mask) for d, mask in zip(seen, masks, strict=True)}
        return [new.get(id(d.weight), d) for d in decisions]

    def _layer(self, decision: Decision) -> Exchange:
        weight, name = decision.weight, decision.weight.target.name
        values, worth = weight.values.detach(), self.regrowth(weight.values.detach(), self.sums[name])
        keep = decision.mask.to(values.device)
        pattern = self._pattern_of(name)
        if pattern.single:
            return Exchange(name, [values], [keep], [worth], weight.shard)
        values, worth, keep = (weight.canonical(whole(some, weight.shard)) for some in (values.abs(), worth, keep))
        return Exchange(
            name,
            [pattern.units(part) for part in weight.parts(values)],
            [living_units(pattern, part) for part in weight.parts(keep)],
            [pattern.units(part) for part in weight.parts(worth)],
        )

    def _mask(self, decision: Decision, keep: Sequence[Tensor]) -> Tensor:
        weight, pattern = decision.weight, self._pattern_of(decision.weight.target.name)
        if pattern.single:
            return keep[0]
        shape = weight.parts(weight.canonical(torch.empty(weight.shape, device="meta")))[0].shape
        parts = [pattern.expand(some, shape) for some in keep]
        return weight.piece(weight.restore(torch.cat(parts))).contiguous()

    def forget(self) -> None:
        """Empty the sums behind an update."""
        self.sums = {}
        self._patience.renew()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums, whole."""
        return {name: whole_on_host(sums, self._masks[name].shard).clone() for name, sums in self.sums.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from sums."""
        weights = {name: self._masks[name] for name in state}
        self.sums = {n: w.piece(state[n]).to(w.values.device, copy=True) for n, w in weights.items()}

    def note(self, schedule: Schedule) -> str:
        """Return a line for the plan."""
        first = schedule.last_update(max(1, int(schedule.begin_step))) or 0
        while first is not None and first < schedule.end_step and not self.regrowth.share(first):
            first = next(s for s in range(first + 1, int(schedule.end_step) + 1) if schedule.last_update(s) == s)
        share = self.regrowth.share(first)
        if not share:
            return f"no update exchanges any weights: {self.regrowth} ends before the first one, at step {first}"
        return f"each layer exchanges {100 * share:.1f} % of its weights at step {first}, and fewer at later updates"


def moved(decisions: Sequence[Decision]) -> int:
    """Return how many entries of all masks the decisions change, either way."""
    numbers = [count(d.mask.to(d.weight.mask.device) != d.weight.mask) for d in decisions]
    return sum(each(numbers, [d.weight.shard for d in decisions]))


def check_regrowth(regrowth: Any, schedule: Any, criterion: Any, pattern: Any, others: Mapping[str, Any]) -> None:
    """Raise ValueError if it is none, or if another argument does not go with it.

    Args:
        regrowth: None for none.
        schedule: that of the pruner.
        criterion: the same.
        pattern: the same.
        others: `reconstruction` and `reversible` by name.
    """
    if regrowth is None:
        return
    if isinstance(regrowth, type):
        raise ValueError(f"regrowth={regrowth.__name__} is a class: pass {regrowth.__name__}(...)")
    if not all(hasattr(regrowth, verb) for verb in _VERBS):
        raise ValueError(f"regrowth={regrowth!r} is no regrowth; see lightning_prune.regrowth.Regrowth")
    said = f"regrowth={regrowth}"
    if isinstance(pattern, CoupledPattern):
        raise ValueError(
            f"{said} has weights return that are zero, and units of pattern={pattern} that are zero on both sides have "
            "no gradient: use a pattern of weights, such as Element()"
        )
    if not isinstance(pattern, SitedPattern) and pattern.least_sparsity:
        raise ValueError(f"{said} keeps no groups of pattern={pattern} whole: use Element(), or leave one out")
    for key, why in {
        "reconstruction": "has given the weights that stay values for those that go",
        "reversible": "brings pruned weights back with their last dense values",
    }.items():
        if others.get(key):
            raise ValueError(f"{said} has pruned weights return at zero, and {key}={others[key]} {why}: leave one out")
    if isinstance(criterion, CorrectingCriterion):
        raise ValueError(f"{said} has pruned weights return, and {criterion} has corrected the others for them")
    if isinstance(schedule, HoldingSchedule):
        raise ValueError(f"{said} moves zeros, and schedule={schedule} holds them where they are: leave one out")
    if isinstance(schedule, ToldSchedule):
        raise ValueError(
            f"{said} looks at the steps before an update, and schedule={schedule} decides about one when a validation "
            "is over: use another schedule"
        )


def check_until(regrowth: Regrowth | None, schedule: Schedule, total_steps: int | None) -> None:
    """Raise ValueError if weights would return at the last step of a run, after which nothing trains them.

    Args:
        regrowth: in whole steps.
        schedule: in whole steps.
        total_steps: of the run; None where nobody knows.
    """
    if regrowth is None or total_steps is None or schedule.last_update(total_steps) != total_steps:
        return
    if regrowth.share(total_steps):
        raise ValueError(
            f"{regrowth} has weights return at step {total_steps}, the last of the run: they would stay zero. Give an "
            f"until of at most {total_steps}, or end the schedule before"
        )
