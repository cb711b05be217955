"""What looks at training before an update: the criterion, and what returns by its gradient."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_prune.coupling.units import Group
from lightning_prune.criterion import ObservingCriterion
from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning.ideas import Ideas
from lightning_prune.pruning.observation import Observation
from lightning_prune.pruning.observed import Observed
from lightning_prune.pruning.reconstructing import check_rebuilt
from lightning_prune.pruning.regrowing import Regrowing, moved
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.schedule import Schedule


class Looking:
    """All of a pruner that needs steps of training before it is asked.

    Args:
        ideas: the pruner's.
        criterion: what chooses.
        holds: the schedule holds zeros, and nothing is chosen.
    """

    def __init__(self, ideas: Ideas, criterion: Any, holds: bool) -> None:
        self._ideas = ideas
        self._criterion = None if holds else criterion
        self._observation: Observation | None = None
        self._regrowing: Regrowing | None = None

    def set_up(
        self, updates: Sequence[Any], groups: Sequence[Group], model: nn.Module, masks: Masks, length: int | None
    ) -> None:
        """Look where these updates ask for it.

        Raises:
            ValueError: that cannot be seen, or weights that are to return have units of unlike sizes.
        """
        criterion = self._criterion
        if isinstance(criterion, ObservingCriterion):
            places: list[Observed] = [place for update in updates for place in update.places()]
            if self._ideas.reconstruction is not None:
                check_rebuilt(criterion, groups, places)
            before, self._observation = self._observation, Observation(criterion, places, model)
            if before is not None:
                before.remove()
        regrowth = self._ideas.regrowth
        if regrowth is not None and not isinstance(self._ideas.pattern, CoupledPattern):
            regrowth = regrowth.resolve(length)
            if self._regrowing is None:
                self._regrowing = Regrowing(regrowth, self._ideas.pattern, masks)
            self._regrowing.regrowth = regrowth
            self._regrowing.check()

    def look(self, schedule: Schedule, step: int, last: int | None) -> None:
        """Look at what follows, or not.

        Args:
            schedule: in whole steps.
            step: how many steps are completed when the last of those begins that come until the pruner is asked again.
            last: the step of the latest update.
        """
        if self._observation is not None:
            self._observation.look(self._observation.due(schedule, step, last))
        if self._regrowing is not None:
            self._regrowing.look(schedule, step, last)

    def observe(self, weights: Collection[MaskedWeight], grad_scale: float) -> None:
        """See what a step has brought: gradients are complete, and not masked yet.

        Args:
            weights: those that are about to be stepped.
            grad_scale: the factor on the gradients.
        """
        if self._observation is not None:
            self._observation.step(weights, grad_scale)
        if self._regrowing is not None:
            self._regrowing.step(weights, grad_scale)

    def ready(self, step: int, due: int, new: bool) -> bool:
        """Return whether all was seen that the update that is due needs; `new`: it was not made for other weights."""
        seen = self._observation is None or self._observation.ready(step, due)
        return seen and (self._regrowing is None or not new or self._regrowing.ready(step, due))

    @property
    def lacking(self) -> str:
        """What an update that is due waits for; empty where none waits."""
        return "" if self._observation is None else self._observation.lacking

    def exchanged(self, decisions: list[Decision], step: int) -> list[Decision]:
        """Return the masks with what returns in the place of as many others."""
        return decisions if self._regrowing is None else self._regrowing.exchanged(decisions, step)

    def returned(
        self, decisions: Sequence[Decision], weights: Iterable[MaskedWeight], optimizers: Sequence[Optimizer]
    ) -> int:
        """Take what optimizers remember of what is going to return from them, and return how many entries change."""
        if self._regrowing is None:
            return 0
        for weight in weights:
            weight.apply_to_moments(optimizers)
        return moved(decisions)

    def forget(self) -> None:
        """Empty what was seen, behind an update."""
        if self._observation is not None:
            self._observation.forget()
        if self._regrowing is not None:
            self._regrowing.forget()

    def remove(self) -> None:
        """Take all hooks off."""
        if self._observation is not None:
            self._observation.remove()

    def notes(self, schedule: Schedule) -> list[str]:
        """Return what the plan says of it."""
        return [] if self._regrowing is None else [self._regrowing.note(schedule)]

    def state_dict(self, step: int, stride: int | None = None) -> dict[str, Any]:
        """Return what a resumed run needs, beside the memories, to go on between a step and its update."""
        if self._observation is None and self._regrowing is None:
            return {}
        sums = {} if self._regrowing is None else self._regrowing.state_dict()
        paced = {} if stride is None or stride == 1 else {"stride": stride}
        return {"step": step} | paced | ({"returning": sums} if sums else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        if self._regrowing is not None:
            self._regrowing.load_state_dict(state.get("returning", {}))
