"""What becomes of the kept weights after an update: back to an earlier step, or drawn anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from lightning_prune import given, saved
from lightning_prune.coupling.example import own_randomness
from lightning_prune.pruning import Pruner
from lightning_prune.shards import (
    Shard,
    local,
    reshard,
    resharding,
    shard_of,
    whole_on_host,
    whole_parameters,
)
from lightning_prune.shrink import is_apart


@dataclass(frozen=True)
class Rewind:
    """Rewind after each update of the masks; by default not after the last, so that training goes on from there.

    With a step: all trainable parameters go back to their values after that many optimizer steps (0: where the run
    started); updates before that step rewind nothing. With "init": the modules of pruned weights draw new values
    through their `reset_parameters`, from a generator of their own. In both cases pruned weights stay zero, and the
    optimizers forget what they knew of the parameters that moved. Source: Frankle & Carbin 2019 (arXiv 1803.03635);
    to a later step, Frankle et al. 2020 (arXiv 1912.05671); drawn anew, their control.

    Args:
        to: an optimizer step of at least 0, or "init".
        after_last: rewind after the last update as well, so that the run ends with what it learns from there on.
        seed: for "init".

    Raises:
        ValueError: `to` is neither.
    """

    to: int | Literal["init"]
    after_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to != "init" and (isinstance(self.to, bool) or not isinstance(self.to, int) or self.to < 0):
            raise ValueError(f"rewind to={self.to!r} must be an optimizer step of at least 0, or 'init'")
        given.flag("after_last", self.after_last)
        given.whole("seed", self.seed)


_FROM_ZERO = (optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.RMSprop, optim.RAdam, optim.Adadelta)
"""Optimizers of which all that they remember of a parameter is zero at first."""


def check_optimizers(rewind: Rewind, model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
    """Raise ValueError if an optimizer of a model that is taken apart over ranks cannot begin anew.

    What it remembers is set to zero there: a checkpoint of pieces from which it is missing does not load.
    """
    for optimizer in optimizers if is_apart(model) else ():
        if type(optimizer) in _FROM_ZERO and not any(group.get("dampening") for group in optimizer.param_groups):
            continue
        known = ", ".join(kind.__name__ for kind in _FROM_ZERO)
        raise ValueError(
            f"rewind={rewind} has optimizers forget what they know, and {type(optimizer).__name__} cannot where the "
            f"model is taken apart over ranks: use one of {known}, without dampening; or prune under DDP"
        )


def _forget(state: dict[str, Any], apart: bool) -> None:
    """Leave of an optimizer's state of a parameter what a new optimizer has."""
    if not apart:
        state.clear()
    for key, value in state.items():
        if isinstance(value, Tensor):
            local(value).zero_()
        elif isinstance(value, (int, float)):
            state[key] = type(value)(0)


class Rewinder:
    """Carry out a `Rewind` on one model: watch for its step, keep the values, put them back after updates.

    Args:
        rewind: what to do.
        pruner: attached to the model.
        model: the model.

    Raises:
        ValueError: the rewind would never act, or cannot be carried out on this model.
    """

    def __init__(self, rewind: Rewind, pruner: Pruner, model: nn.Module) -> None:
        self.rewind = rewind
        self._pruner = pruner
        self._model = model
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._saved: dict[str, Tensor] | None = None  # of what is taken apart over ranks, the pieces that lie here
        self._shards: dict[str, Shard | None] = {}  # as they were when those were kept
        self._check()

    @property
    def _parameters(self) -> dict[str, nn.Parameter]:
        """Those of the names that trained at first, as they lie in the model now."""
        reshard(resharding(self._model))
        now = dict(self._model.named_parameters())
        return {name: now[name] for name in self._names if name in now}

    def watch(self, step: int) -> None:
        """Keep the values if `step`, the number of completed steps, is the one to rewind to."""
        if self.rewind.to != "init" and self._saved is None and step >= self.rewind.to:
            self._keep({name: local(p).detach().clone() for name, p in self._parameters.items()})

    def _keep(self, values: dict[str, Tensor]) -> None:
        self._saved = values
        self._shards = {name: shard_of(p) for name, p in self._parameters.items()}

    def after_update(self, optimizers: Iterable[Optimizer]) -> bool:
        """Rewind if the latest update calls for it. Returns whether it did."""
        last, end = self._pruner.last_update, self._pruner.resolved_schedule.end_step
        if last is None or (last >= end and not self.rewind.after_last):
            return False
        moved = self._draw(last) if self.rewind.to == "init" else self._put_back()
        apart = is_apart(self._model)
        for optimizer in optimizers:
            for parameter in moved:
                if parameter in optimizer.state:
                    _forget(optimizer.state[parameter], apart)
        self._pruner.mask_weights()
        return bool(moved)

    def state_dict(self) -> dict[str, Any]:
        """Return the values kept, whole; those of pieces are collected on the CPU of every rank."""
        if self._saved is None:
            return {}
        return {"saved": {name: whole_on_host(value, self._shards[name]) for name, value in self._saved.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the values kept. Raises ValueError if they are of other parameters, or damaged."""
        where, now = "the rewind's state", self._parameters
        kept = saved.mapping(where, state).get("saved")
        if kept is None:
            return
        values = saved.mapping(f"{where}: saved", kept)
        unknown = sorted(set(values) - set(now))
        if unknown:
            raise ValueError(f"{where} is of other parameters: the model trains no {unknown[:4]}")
        for name, value in values.items():
            saved.tensor(f"{where}: saved[{name!r}]", value, now[name].shape)
        pieces = {name: (value, shard_of(now[name])) for name, value in values.items()}
        here = {name: value if shard is None else shard.piece(value) for name, (value, shard) in pieces.items()}
        self._keep({name: value.to(now[name].device) for name, value in here.items()})

    def _put_back(self) -> list[nn.Parameter]:
        if self._saved is None:
            return []
        now = self._parameters
        with torch.no_grad():
            for name, value in self._saved.items():
                local(now[name]).copy_(value)
        return list(now.values())

    def _draw(self, step: int) -> list[nn.Parameter]:
        modules = self._modules()
        with own_randomness():
            torch.manual_seed(self.rewind.seed * 1_000_003 + step)
            for module, reset in modules.items():
                with whole_parameters(module):
                    reset()
        return [p for module in modules for p in module.parameters(recurse=False)]

    def _modules(self) -> dict[nn.Module, Any]:
        owners = [module for weight in self._pruner.masks.values() for module, _ in weight.target.owners]
        return {m: getattr(m, "reset_parameters", None) or getattr(m, "_reset_parameters", None) for m in owners}

    def _check(self) -> None:
        schedule = self._pruner.resolved_schedule
        if self._pruner.reversible:
            raise ValueError("rewind does not go with reversible=True: a weight that returns would bring a later value")
        if self._pruner.regrowth is not None:
            raise ValueError(
                f"rewind does not go with regrowth={self._pruner.regrowth}: what returns begins at zero, and would get "
                "an early value. Leave one out"
            )
        if not self.rewind.after_last and schedule.begin_step == schedule.end_step:
            raise ValueError(
                "rewind would never act: the schedule has one update only, and after_last is off. "
                f"Use Rewind({self.rewind.to!r}, after_last=True)"
            )
        if self.rewind.to != "init" and self.rewind.to > schedule.end_step:
            raise ValueError(f"rewind to={self.rewind.to} lies after the last update, at step {schedule.end_step}")
        if self.rewind.to == "init":
            for module, reset in self._modules().items():
                if reset is None:
                    raise ValueError(
                        f"rewind to='init' needs reset_parameters(), which {type(module).__name__} has not"
                    )
