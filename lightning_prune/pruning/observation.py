"""What a criterion sees of training before an update: in the window alone, and added up over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune import observing, shards
from lightning_prune.criterion import ObservingCriterion
from lightning_prune.masks import MaskedWeight
from lightning_prune.observing import Watch, as_written, compiled
from lightning_prune.pruning.asking import at_once, seen_of
from lightning_prune.pruning.observed import Observed, check_seen
from lightning_prune.pruning.patience import PATIENCE, Patience
from lightning_prune.ranking import read
from lightning_prune.schedule import Schedule

EXAMPLES = "examples"
"""Under this key a memory has how many examples, or forwards, of a layer were seen."""
_VIEWS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "input": observing.inputs_of,
    "squared input": observing.squared_inputs_of,
    "output": observing.outputs_of,
}
_CHUNK = 1 << 15
"""Values that are looked at a time on the CPU: they stay in a core's cache."""


class Observation:
    """A criterion that looks at training, on the weights or groups that it is asked for.

    Args:
        criterion: what looks.
        places: where.
        model: the model, to see whether it is compiled; None in a copy, which does not know it.

    Raises:
        ValueError: what it wants to look at cannot be seen; the message names the weights and the remedy.
    """

    def __init__(self, criterion: ObservingCriterion, places: Sequence[Observed], model: nn.Module | None) -> None:
        check_seen(places, criterion)
        self._criterion: Any = criterion
        self._places = list(places)
        self._steady = model is not None and compiled.is_compiled(model)
        self._watches: list[Watch] = []
        self._layers: list[nn.Module] = []
        self._on = False
        self._patience = Patience()
        self.lacking = ""  # what an update that is due waits for
        if self._hooked and self._steady:
            self._put()

    def __getstate__(self) -> dict[str, Any]:
        """Leave hooks out of copies and pickles: `__setstate__` puts them on the copy's layers."""
        return vars(self) | {"_watches": [], "_layers": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Look at the copy's layers from now on, if this one was looking."""
        vars(self).update(state)
        if self._hooked and (self._on or self._steady):
            self._put()

    @property
    def _hooked(self) -> bool:
        return self._criterion.observes != "gradient"

    def due(self, schedule: Schedule, step: int, last: int | None) -> bool:
        """Return whether the step that follows `step` completed ones lies in the window before an update."""
        window = self._criterion.window
        if window is None:
            return last is None or last < schedule.end_step
        update = schedule.last_update(step + window)
        return update is not None and (last is None or update > last)

    def look(self, on: bool) -> None:
        """Look at the steps to come, or no longer."""
        self._on = on
        for place in self._places if not on else ():
            place.pending.clear()
        if not self._hooked or (self._steady and self._watches):
            return
        if on and self._watches and self._now() != self._layers:  # a layer was replaced
            self.remove()
        if on and not self._watches:
            self._put()
        elif not on:
            self.remove()

    def remove(self) -> None:
        """Take all hooks off."""
        for watch in self._watches:
            watch.remove()
        if self._watches and self._steady:
            compiled.forget_compiled()
        self._watches, self._layers = [], []

    def _now(self) -> list[nn.Module]:
        return [module for place in self._places for module, _ in place.watched.target.owners]

    def _put(self) -> None:
        alone = ("output", "saliency")
        for place in self._places:
            for module, _ in place.watched.target.owners:
                kind: Any = self._criterion.observes if self._criterion.observes in alone else "input"
                self._watches.append(Watch(module, kind, partial(self._see, place, module), self._steady))
        self._layers = self._now()
        if self._steady:
            compiled.forget_compiled()

    @torch.no_grad()
    def _see(self, place: Observed, module: nn.Module, x: Any) -> None:
        if not self._on:
            return
        with as_written(place.watched.values):
            if place.read is not None:
                seen = place.units(module, x)
                seen = seen * seen.shape[0] if self._criterion.observes == "saliency" else seen
            else:
                seen = _VIEWS[self._criterion.observes](module, x)
            found = self._criterion.observe(place.values(self._criterion), seen)
        for key, sums in found.items():
            place.pending.setdefault(key, []).append(sums)
        place.pending.setdefault(EXAMPLES, []).append(seen.new_tensor(len(seen), dtype=torch.float32))

    @torch.no_grad()
    def step(self, weights: Iterable[MaskedWeight], grad_scale: float) -> None:
        """Take over into the memories what a step has seen: its gradients are complete, and not masked yet.

        Args:
            weights: those whose optimizer is about to step.
            grad_scale: the factor on the gradients by a loss scaler, which may leave the step out if they overflow.
        """
        if not self._on or not self._places:
            return
        with as_written(self._places[0].weight.values):  # a training step of manual optimization is under autocast
            self._step(weights, grad_scale)

    def _step(self, weights: Iterable[MaskedWeight], grad_scale: float) -> None:
        if self._hooked:
            self._add_up(grad_scale)
            return
        stepped = {id(weight) for weight in weights}
        for place in self._places:
            values, grad = seen_of(place.weight, self._criterion) if id(place.weight) in stepped else (None, None)
            if values is None or grad is None:
                continue
            grad = grad.to_dense() if grad.layout != torch.strided else grad
            grad = grad / grad_scale if grad_scale != 1.0 else grad
            if grad_scale == 1.0 and self._in_chunks(place.weight, values, grad):
                continue
            for own, part, its_grad in _parts(self._criterion, place.weight, values, grad):
                self._move_on(place.weight, own, self._criterion.observe(part, its_grad), grad_scale != 1.0)

    def _in_chunks(self, weight: MaskedWeight, values: Tensor, grad: Tensor) -> bool:
        """Look at a large weight of single entries chunk by chunk, and return whether that could be done."""
        known = weight.memory
        cpu = values.device.type == "cpu" and values.is_contiguous() and grad.is_contiguous()
        if not (getattr(self._criterion, "of_entries", False) and cpu and known and values.numel() > _CHUNK):
            return False
        flat = {key: old.view(-1) for key, old in known.items() if old.dim()}
        decay: float = getattr(self._criterion, "decay", 1.0)
        w, g = values.view(-1), grad.view(-1)
        for start in range(0, w.numel(), _CHUNK):
            some = slice(start, start + _CHUNK)
            for key, sums in self._criterion.observe(w[some], g[some]).items():
                if key in flat:
                    _add(flat[key][some], sums, decay)
                elif not start:
                    _add(known[key], sums, decay)
        return True

    def _add_up(self, grad_scale: float) -> None:
        """Add what this step's forwards have seen up over ranks, and to the memories."""
        rows: Sequence[str] = getattr(self._criterion, "rows", ())
        keys: list[list[str]] = []
        sums: list[Tensor] = []
        for place in self._places:
            pending, place.pending = place.pending, {}
            pending = pending or self._nothing(place)
            keys.append(sorted(pending))
            for key in keys[-1]:
                sums.append(torch.cat(pending[key]) if key in rows else sum(pending[key][1:], start=pending[key][0]))
        found = iter(_stacked(sums, [key in rows for own in keys for key in own]))
        scaled: Sequence[str] = getattr(self._criterion, "of_gradient", ())
        for place, own in zip(self._places, keys, strict=True):
            mine = {key: next(found) / (grad_scale if key in scaled else 1.0) for key in own}
            self._move_on(place.weight, place.own, mine, grad_scale != 1.0)

    def _nothing(self, place: Observed) -> dict[str, list[Tensor]]:
        """Return the sums of no example: those of a rank, or a layer, that has seen none at this step."""
        weight = place.values(self._criterion)
        layer: Any = place.watched.target.owners[0][0]
        observes = self._criterion.observes
        inputs = (int(observes == "squared input"), getattr(layer, "groups", 1), *weight.shape[1:], 1)
        shape = inputs if observes in ("input", "squared input") else (0, len(weight), 1)
        found = self._criterion.observe(weight, weight.new_zeros(shape))
        return {key: [sums] for key, sums in found.items()} | {EXAMPLES: [weight.new_zeros((), dtype=torch.float32)]}

    def _move_on(self, weight: MaskedWeight, own: str, sums: Mapping[str, Tensor], guarded: bool) -> None:
        """Add sums to a memory; those that are not finite are left out where a loss scaler leaves the step out."""
        decay: float = getattr(self._criterion, "decay", 1.0)
        rows: Sequence[str] = getattr(self._criterion, "rows", ())
        by_step: Sequence[str] = getattr(self._criterion, "by_step", ())
        good = None
        if guarded and sums:
            good = torch.stack([torch.isfinite(some).all() for some in sums.values()]).all()
            if rows and not bool(good):
                return
        for key, some in sums.items():
            old = weight.memory.get(own + key)
            if key in rows:
                weight.memory[own + key] = some if old is None else torch.cat([old, some])
                continue
            if key in by_step:
                self._keep(weight.memory, own, key, some if good is None else some.where(good, 0.0))
                continue
            old = weight.memory[own + key] = torch.zeros_like(some) if old is None else old
            if good is not None:
                old.copy_(torch.where(good, _add(old.clone(), some, decay), old))
            else:
                _add(old, some, decay)

    def _keep(self, memory: dict[str, Tensor], own: str, key: str, seen: Tensor) -> None:
        """Keep what was seen of this step by itself; what has been kept before becomes sums where it is enough."""
        kept = [name for name in memory if name.startswith(f"{own}{key}/")]
        if len(kept) >= self._criterion.most_steps:
            for summed, some in self._criterion.folded([{key: memory.pop(name)} for name in kept]).items():
                old = memory.get(own + summed)
                memory[own + summed] = some if old is None else old.add_(some)
            kept = []
        memory[f"{own}{key}/{len(kept)}"] = seen

    def ready(self, step: int, due: int) -> bool:
        """Return whether all was seen that the update that is due needs.

        Raises:
            ValueError: something still was not after `PATIENCE` steps; the message names it.
        """
        unseen = self._unseen()
        names = ", ".join(f"'{name}'" for name in unseen)
        self.lacking = f"{self._criterion} has seen no {self._criterion.observes} of {names}" if unseen else ""
        if not unseen:
            return True
        if self._patience.lasts(step):
            return False
        raise ValueError(
            f"{self.lacking} in {PATIENCE} steps, and the update of step {due} needs it: leave out what the "
            "forward does not reach in training mode by Targets(exclude=...), and call before_step(optimizer) after "
            "each backward"
        )

    def _unseen(self) -> list[str]:
        """Return the names of weights of which nothing was seen; of layers that read the same units one will do."""
        if not self._hooked:
            return [place.weight.target.name for place in self._places if not place.weight.memory]
        known = [(place, place.weight.memory.get(place.own + EXAMPLES)) for place in self._places]
        numbers = iter(read([number for _, number in known if number is not None]))
        seen: dict[tuple[str, str], bool] = {}
        for place, number in known:
            units = (place.weight.target.name, place.own.partition("/")[0])
            seen[units] = seen.get(units, False) or (number is not None and bool(next(numbers)))
        return [name for (name, _), some in seen.items() if not some]

    def forget(self) -> None:
        """Empty the memories behind an update, but those that last."""
        self._patience.renew()
        if self._criterion.window is None or getattr(self._criterion, "decay", 1.0) != 1.0:
            return
        for place in self._places:
            place.weight.memory = {}


def _add(memory: Tensor, sums: Tensor, decay: float) -> Tensor:
    """Move a memory on in place, and return it."""
    return memory.add_(sums) if decay == 1.0 else memory.lerp_(sums.to(memory.dtype), 1.0 - decay)


def _parts(criterion: Any, weight: MaskedWeight, values: Tensor, grad: Tensor) -> Iterable[tuple[str, Tensor, Tensor]]:
    if at_once(criterion, weight):
        return [("", values, grad)]
    pairs = zip(weight.parts(values), weight.parts(grad), strict=True)
    return [(f"{number}/", part, its) for number, (part, its) in enumerate(pairs)]


def _stacked(sums: list[Tensor], rows: Sequence[bool]) -> list[Tensor]:
    """Return sums over ranks; rows of all ranks come one below the other, those of the first rank first."""
    rank, size = shards.ranks()
    if size > 1 and any(rows):
        lengths = torch.zeros(size, len(sums), device=sums[0].device)
        lengths[rank] = torch.tensor([len(some) if row else 0 for some, row in zip(sums, rows, strict=True)])
        (lengths,) = shards.over_ranks([lengths])
        before, total = lengths[:rank].sum(0).long().tolist(), lengths.sum(0).long().tolist()
        for index, some in enumerate(sums):
            if rows[index]:
                whole = some.new_zeros(total[index], *some.shape[1:])
                whole[before[index] : before[index] + len(some)] = some
                sums[index] = whole
    return shards.over_ranks(sums)
