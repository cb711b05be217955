"""A schedule that is told a metric after validations: what was told, and the last weights that were good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import saved
from lightning_prune.masks import Masks
from lightning_prune.schedule import Schedule, ToldSchedule

_WHERE = "the pruning state: told"


@dataclass(frozen=True)
class _Good:
    """The model as it was at a validation: its values by name, and the masks and thresholds."""

    index: int
    values: dict[str, Tensor]
    masks: dict[str, Tensor]
    thresholds: dict[str, float]


class Telling:
    """What a pruner was told of validations, and the model of the last good one.

    Args:
        model: whose weights are remembered.
        masks: of the model.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self._model: nn.Module | None = model
        self._masks = masks
        self._history: list[tuple[int, float]] = []
        self._good: _Good | None = None
        self.owes = False
        """Whether weights are to go back, or a change of the sparsity waits."""
        self.closed = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out of copies and pickles."""
        return vars(self) | {"_model": None}

    def schedule(self, resolved: Any) -> Schedule:
        """Return what an idea in whole steps asks for by now."""
        if not self._history:
            return resolved
        told = resolved.told(tuple(self._history))
        return told.closed() if self.closed else told

    def tell(self, step: int, value: float, resolved: Any) -> Any:
        """Take note of a validation, remember the weights if it was good, and return what is asked for now."""
        if self._history and self._history[-1][0] >= step:  # the same weights, validated again
            return self.schedule(resolved)
        before = self.schedule(resolved)
        self._history.append((step, float(value)))
        now: Any = self.schedule(resolved)
        if now.good == len(self._history) - 1:
            self._good = self._look(now.good)
        self.owes = now.back or now.levels != getattr(before, "levels", now.levels[:1])
        return now

    def _look(self, index: int) -> _Good:
        if self._model is None:
            raise RuntimeError(
                "this pruner is a copy, made in mid-run, and knows of no model whose weights to remember"
            )
        values = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        masks = {name: weight.mask.clone() for name, weight in self._masks.items()}
        return _Good(index, values, masks, {name: float(weight.threshold) for name, weight in self._masks.items()})

    def go_back(self, optimizers: Iterable[Optimizer]) -> None:
        """Put the weights and masks of the last good validation back; optimizers forget what they knew of them."""
        good = self._good
        if good is None or self._model is None:
            return
        now = self._model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, value in good.values.items():
                now[name].copy_(value)
        for name, weight in self._masks.items():
            weight.write(good.masks[name].to(weight.mask.device, copy=True), good.thresholds[name])
        moved = {id(parameter) for parameter in self._model.parameters()}
        for optimizer in optimizers:
            for parameter in [p for p in getattr(optimizer, "state", {}) if id(p) in moved]:
                optimizer.state[parameter].clear()

    def settle(self, step: int, optimizers: Iterable[Optimizer]) -> bool:
        """End with the last good weights, and return whether that has changed any."""
        self.closed, self.owes = True, False
        if self._good is None:
            return False
        latest = self._good.index == len(self._history) - 1 and self._history[-1][0] == step
        if not latest:
            self.go_back(optimizers)
        return not latest

    def values(self) -> list[tuple[int, float]]:
        """Return what was told."""
        return list(self._history)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors."""
        state: dict[str, Any] = {"history": [list(each) for each in self._history], "owes": self.owes}
        if self._good is not None:
            good = self._good
            state["good"] = {
                "index": good.index,
                "values": good.values,
                "masks": good.masks,
                "thresholds": good.thresholds,
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError if it is damaged, or of another model; nothing is changed then."""
        history: list[tuple[int, float]] = []
        for number, each in enumerate(saved.sequence(f"{_WHERE}: history", saved.at(_WHERE, state, "history"))):
            step, value = saved.sequence(f"{_WHERE}: history[{number}]", each)
            history.append((saved.integer(f"{_WHERE}: history[{number}]: step", step), float(value)))
        good = state.get("good")
        kept: _Good | None = None
        if good is not None and self._model is not None:
            now = self._model.state_dict()
            values = saved.mapping(f"{_WHERE}: good: values", saved.at(_WHERE, good, "values"))
            masks = saved.mapping(f"{_WHERE}: good: masks", saved.at(_WHERE, good, "masks"))
            if values.keys() != now.keys() or masks.keys() != set(self._masks):
                raise ValueError(f"{_WHERE} holds the weights of another model")
            for name, value in values.items():
                own = now[name]
                if not isinstance(value, Tensor) or (value.shape, value.dtype) != (own.shape, own.dtype):
                    raise ValueError(
                        f"{_WHERE}: good: values[{name!r}] is not of shape {tuple(own.shape)}, {own.dtype}"
                    )
            for name, mask in masks.items():
                saved.tensor(f"{_WHERE}: good: masks[{name!r}]", mask, tuple(self._masks[name].shape), True)
            index = saved.integer(f"{_WHERE}: good: index", good["index"], 0, len(history) - 1)
            kept = _Good(index, values, masks, dict(good["thresholds"]))
        self._history, self._good = history, kept
        self.owes = saved.boolean(f"{_WHERE}: owes", state.get("owes", False))


def note_of_told(schedule: Any) -> list[str]:
    """Return what the plan says of a schedule whose sparsity is not known beforehand."""
    if not isinstance(schedule, ToldSchedule):
        return []
    return [f"as sparse as {schedule.metric} allows: decided at each validation"]
