"""What is pruned of a model now, and what will be once it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from lightning_prune.coupling.units import Coupling
from lightning_prune.masks import followers, suggestion
from lightning_prune.pruning.layout_check import with_layouts_used
from lightning_prune.pruning.unit_targets import UnitTargets, unit_targets
from lightning_prune.pruning.waiting import Trained, Waiting, candidates, note_of_few, that_train
from lightning_prune.ranking import count
from lightning_prune.shards import each, local, shard_of
from lightning_prune.targets import Target, Targets, plain_name


class Chosen:
    """What rules, and the units of a coupled pattern, choose of a model, chosen again when weights begin to train.

    Args:
        rules: which weights.
        coupling: the model's groups of units, where the pattern is a coupled one: they choose among the weights.
        model: the model.
        trained: the parameters that optimizers step.
        needy: which targets need a layout that is not known, by idea.
        zeros: weights that have zeros are taken in whether they train or not, so that they still have them when they
            begin to: a look after the step that woke them would come too late.

    Attributes:
        found: what the rules select and trains.
        units: the groups of units, where the pattern is a coupled one.
        unread: name of a weight -> why its use does not tell the layout that it needs.
        followers: name of a weight that gets the masks of another one -> the name of that one.

    Raises:
        ValueError: nothing is left; the message says why.
    """

    def __init__(
        self,
        rules: Targets,
        coupling: Coupling | None,
        model: nn.Module,
        trained: Trained,
        needy: Callable[[Sequence[Target]], Mapping[str, Sequence[Target]]],
        zeros: bool = False,
    ) -> None:
        self._rules = rules
        self._every, self.unread = with_layouts_used(candidates(rules, model, zeros), model, needy)
        self._waiting = Waiting(model, trained)
        if zeros:
            self._waiting.wake(_with_zeros(model))
        self._coupling = coupling
        self._choose(self._waiting)

    def _choose(self, waiting: Waiting) -> None:
        self.found = that_train(self._rules, self._every, waiting)
        self.units: UnitTargets | None = None
        if self._coupling is not None:
            self.units = unit_targets(waiting.model, self.found, self._coupling, waiting.to_leave(self._rules))
        of = self.found if self.units is None else self.units
        self.targets = of.targets
        self.skipped = of.skipped
        names = frozenset(target.name for target in of.targets)
        self.counted = names if self.units is None else self.units.counted
        self.followers = followers(self._rules, waiting.model, of.targets)
        like = suggestion(waiting.model, names, waiting.reasons, self._rules)
        self.notes = [*note_of_few(self._every, self.found), *like]

    def look(self, optimizers: Sequence[Optimizer]) -> bool:
        """Choose again if parameters have begun to train, and return whether any have."""
        woken = bool(self._waiting.reasons) and self._waiting.look(optimizers)
        if woken:
            self._choose(self._waiting)
        return woken

    def wake(self, names: Iterable[str]) -> bool:
        """Choose again with parameters that a saved run has pruned, and return whether any of them were waiting."""
        woken = self._waiting.wake(names)
        if woken:
            self._choose(self._waiting)
        return woken


def _with_zeros(model: nn.Module) -> list[str]:
    """Return the names of parameters that have zeros, on whichever rank those lie."""
    named = [(plain_name(name), p.detach()) for name, p in model.named_parameters() if not p.is_meta]
    alive = each([count(local(p) != 0) for _, p in named], [shard_of(p) for _, p in named])
    return [name for (name, p), number in zip(named, alive, strict=True) if number < p.numel()]
