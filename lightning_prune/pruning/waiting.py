"""Which parameters of a model do not train, and why: they are left whole, and watched for when they begin to."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_prune.masks import Places
from lightning_prune.targets import Found, Targets, plain_name

FROZEN = "frozen"
UNSTEPPED = "not stepped by any optimizer"
_FEW = 0.1
"""Where less than this share of the weights that rules select trains, the plan says so."""


Trained = Iterable[nn.Parameter] | None
"""The parameters that optimizers step; None where that is not known: all that are not frozen."""


class Waiting:
    """The parameters of a model that are frozen, or that no optimizer steps.

    Args:
        model: the model.
        trained: the parameters that optimizers step.

    Attributes:
        model: the model.
        reasons: name of each -> why it does not train.
    """

    def __init__(self, model: nn.Module, trained: Trained) -> None:
        self.model = model
        self._trained = None if trained is None else tuple(trained)
        self._count = 0
        stepped = self._stepped(())
        self.reasons = {
            plain_name(name): UNSTEPPED if p.requires_grad else FROZEN
            for name, p in model.named_parameters()
            if not p.requires_grad or (stepped is not None and id(p) not in stepped)
        }
        self._places = Places(model, self.reasons)

    def to_leave(self, rules: Targets) -> dict[str, str]:
        """Return the parameters that units must not be cut out of: the frozen ones alone where rules name weights."""
        return {name: why for name, why in self.reasons.items() if why == FROZEN or not getattr(rules, "include", ())}

    def look(self, optimizers: Sequence[Optimizer]) -> bool:
        """Return whether parameters have begun to train, and take them out; where none has, at some 100 ns for each."""
        now = {name: self._places.found[name].parameter for name in self.reasons}
        thawed = any(p is not None and p.requires_grad for n, p in now.items() if self.reasons[n] == FROZEN)
        count = sum(len(group["params"]) for optimizer in optimizers for group in optimizer.param_groups)
        if not thawed and count == self._count:
            return False
        self._count = count
        stepped = self._stepped(optimizers)
        free = [name for name, p in now.items() if p is not None and p.requires_grad]
        train = [name for name in free if stepped is None or id(now[name]) in stepped]
        self.wake(train)
        return bool(train)

    def wake(self, names: Iterable[str]) -> bool:
        """Take parameters out, and return whether one of them was waiting."""
        before = len(self.reasons)
        for name in names:
            self.reasons.pop(name, None)
        return len(self.reasons) < before

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out of copies and pickles, in which nothing waits."""
        return vars(self) | {"model": nn.Module(), "reasons": {}, "_trained": None, "_places": Places(nn.Module(), ())}

    def _stepped(self, optimizers: Iterable[Optimizer]) -> set[int] | None:
        if self._trained is None:
            return None
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        return {id(p) for p in self._trained} | {id(p) for group in groups for p in group["params"]}


def warn_of_late(waiting: Waiting, optimizers: Sequence[Optimizer], skipped: Mapping[str, str]) -> None:
    """Warn by name if parameters that were left whole for it have begun to train, for masks that take no more in."""
    before = dict(waiting.reasons)
    if before and waiting.look(optimizers):
        late = [name for name, why in before.items() if name not in waiting.reasons and skipped.get(name) == why]
        if late:
            warnings.warn(
                f"{some(late)} did not train when learned masks began and train now: they stay whole. Begin with them "
                "unfrozen, or use a Pruner, which prunes weights from when they train",
                stacklevel=2,
            )


def some(names: Sequence[str], most: int = 5) -> str:
    """Return names for people: the first few, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def candidates(rules: Targets, model: nn.Module, frozen: bool = False) -> Found:
    """Return what rules select of a model, frozen weights among it: all that may come to be pruned.

    Raises:
        ValueError: they select nothing that is not frozen, unless that is asked for, or a pattern matches nothing.
    """
    if frozen and isinstance(rules, Targets):
        return rules.find(model, frozen=True)
    found = rules.find(model)
    if not isinstance(rules, Targets) or FROZEN not in found.skipped.values():  # pyright: ignore
        return found
    return Found(rules.find(model, frozen=True).targets, found.skipped)


def that_train(rules: Targets, every: Found, waiting: Waiting) -> Found:
    """Return those targets that train; what rules include by name is pruned whether it trains or not.

    Raises:
        ValueError: none is left; the message says why.
    """
    if getattr(rules, "include", ()):
        return every
    left = {target.name: why for target in every.targets if (why := waiting.reasons.get(target.name))}
    targets = tuple(target for target in every.targets if target.name not in left)
    skipped = {name: why for name, why in every.skipped.items() if name not in {t.name for t in targets}}
    if not targets:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left.items())[:8])
        raise ValueError(
            f"Targets select no weight of {type(waiting.model).__name__} that trains ({why}); "
            "Targets(include=...) prunes what it names all the same"
        )
    return Found(targets, skipped | left)


def note_of_few(every: Found, now: Found) -> list[str]:
    """Return a line for the plan where most of what rules select does not train, or none."""
    whole, size = (sum(t.parameter.numel() for t in found.targets) for found in (every, now))
    if size >= _FEW * whole:
        return []
    return [
        f"{size:,} of the {whole:,} weights that the rules select train now; the others are frozen or stepped by no "
        "optimizer, and are pruned to the schedule's level once they train"
    ]
