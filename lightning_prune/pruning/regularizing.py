"""Which regularizer acts on which weight, and what it is told of the moment: what would go if all went now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from torch import Tensor

from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.regularizer import Moment, Regularizer, SitedRegularizer
from lightning_prune.schedule import Schedule
from lightning_prune.shards import whole_on_host


class Regularizing:
    """A pruner's regularizer on the weights of a model.

    Args:
        regularizer: of the ideas; None for none.
    """

    def __init__(self, regularizer: Regularizer | SitedRegularizer | None) -> None:
        self._regularizer = regularizer
        self._going: dict[str, Tensor] = {}

    @property
    def foresees(self) -> bool:
        """Whether it acts on what is going to go."""
        return bool(getattr(self._regularizer, "needs_going", False))

    def foresee(self, ends: Sequence[Decision]) -> None:
        """Take note of the masks that the final sparsity would have now."""
        self._going = {d.weight.target.name: d.weight.mask & ~d.mask.to(d.weight.mask.device) for d in ends}

    def of(
        self,
        weights: Sequence[MaskedWeight],
        counted: Collection[str],
        norms: Collection[str] | None,
        schedule: Schedule,
        step: int | None,
    ) -> list[tuple[MaskedWeight, Regularizer]]:
        """Return which regularizer acts on which of the weights.

        Args:
            weights: those asked for.
            counted: the names of those that are weights of the rule.
            norms: the names of scales of norms that go with units; None where all are weights.
            schedule: in whole steps.
            step: of the latest update.
        """
        regularizer = self._regularizer
        if regularizer is None:
            return []
        if not isinstance(regularizer, SitedRegularizer):
            return [(weight, regularizer) for weight in weights if weight.target.name in counted]
        window = max(1.0, float(schedule.end_step - schedule.begin_step))
        progress = 0.0 if step is None else min(1.0, (step - schedule.begin_step) / window)
        asked: list[tuple[MaskedWeight, Regularizer]] = []
        for weight in weights:
            name = weight.target.name
            entries = self._going.get(name)
            moment = Moment(
                _role(name, counted, norms), progress, None if entries is None else weight.canonical(entries)
            )
            asked.append((weight, regularizer.at(moment)))
        return asked

    def state_dict(self, masks: Masks) -> dict[str, Tensor]:
        """Return what was foreseen, by name."""
        return {name: whole_on_host(going, masks[name].shard) for name, going in self._going.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], masks: Masks) -> None:
        """Go on from what was foreseen."""
        self._going = {name: masks[name].piece(flags).to(masks[name].mask.device) for name, flags in state.items()}


def _role(name: str, counted: Collection[str], norms: Collection[str] | None) -> Literal["weight", "norm", "bias"]:
    if name in counted or norms is None:
        return "weight"
    return "norm" if name in norms else "bias"
