"""Learned masks on single weights: put on the weight itself while its layer computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.learned.hooks import Masking
from lightning_prune.learned.weight_hooks import Factor, Handle, mask_weight
from lightning_prune.masks import Masks
from lightning_prune.pruning import floor
from lightning_prune.pruning.waiting import Waiting, candidates, that_train
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.schedule import Schedule
from lightning_prune.scope import GlobalRanking, Layer
from lightning_prune.selection import Exact, Units
from lightning_prune.targets import Targets


class MaskedWeights:
    """The weights of a model, each entry with a mask of its own: a supermask (Zhou et al. 2019, arXiv 1905.01067).

    One draw serves the whole batch. Attributes as those of `MaskedUnits`; a group is a weight.

    Raises:
        ValueError: no weight is among the targets.
    """

    grain = 1

    def __init__(self, targets: Targets, waiting: Waiting) -> None:
        self.waiting, model = waiting, waiting.model
        found = that_train(targets, candidates(targets, model), waiting)
        self.masks = Masks(found.targets, False, model)
        self.counted = frozenset(self.masks)
        self.skipped = found.skipped
        self.names = list(self.masks)
        self.sizes = [weight.mask.numel() for weight in self.masks.values()]
        self.most = sum(self.sizes)
        self._model = model

    def owner(self, number: int) -> nn.Parameter:
        """Return the weight of that number."""
        return self.masks[self.names[number]].parameter

    def hook(self, masking: Masking) -> list[Handle]:
        """Have every layer compute with masked weights."""

        def factor(number: int, reader: int) -> Factor:
            return lambda weight, training: masking(number, reader, int(training), weight).view(weight.shape)

        return [
            handle
            for number, weight in enumerate(self.masks.values())
            for reader, (module, attribute) in enumerate(weight.target.owners)
            for handle in mask_weight(self._model, module, attribute, factor(number, reader))
        ]

    def choose(self, schedule: Schedule, step: int, worth: Sequence[Tensor]) -> tuple[list[Tensor], list[float]]:
        """Return which weights stay at a step of a schedule if they are worth so much, and the thresholds.

        Each tensor keeps some, as under `GlobalRanking()`.
        """
        asked = schedule.sparsity(step)
        pool = [Units(name, values) for name, values in zip(self.names, worth, strict=True)]
        layers = [Layer(name, (size,), size, 0) for name, size in zip(self.names, self.sizes, strict=True)]
        (budget,) = GlobalRanking()(layers, asked)
        keeps, threshold = floor.select(Exact(), [[units] for units in pool], budget.least, budget.drop, asked)
        return keeps, [threshold] * len(keeps)

    def decisions(self, keeps: Sequence[Tensor], thresholds: Sequence[float]) -> list[Decision]:
        """Return the masks for the weights kept."""
        weights = self.masks.values()
        return [
            Decision(weight, keep.view(weight.mask.shape), threshold)
            for weight, keep, threshold in zip(weights, keeps, thresholds, strict=True)
        ]

    def from_zeros(self) -> list[Decision]:
        """Return the masks that the zeros of a stripped model show."""
        return [Decision(weight, weight.parameter.detach() != 0, 0.0) for weight in self.masks.values()]

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Return the expected share of zeros."""
        return torch.stack([(1 - p).sum() for p in probabilities]).sum() / sum(self.sizes)

    def factors(self, settled: Sequence[Tensor]) -> Mapping[str, Any]:
        """Return by what weights are multiplied, where it is not 1."""
        named = zip(self.names, settled, strict=True)
        return {name: values for name, values in named if not bool((values == 1.0).all())}

    def multiplied(self, name: str, tensor: Tensor, factors: Mapping[str, Any]) -> Tensor:
        """Return a copy of a weight, multiplied by its factors."""
        factor = factors.get(name)
        return tensor.detach().clone() if factor is None else tensor.detach() * factor.to(tensor).view(tensor.shape)
