"""What a report says of each weight, read off the weights themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.ranking import counts
from lightning_prune.report import WeightReport


def alive(weight: MaskedWeight) -> Tensor:
    """Return which entries are not zero in the model, whatever the mask says."""
    return weight.parameter.detach() != 0


def weight_reports(
    masks: Masks,
    counted: Collection[str],
    left: Callable[[MaskedWeight], Tensor] = alive,
    finals: Mapping[str, float] = {},
) -> list[WeightReport]:
    """Return the numbers of each weight that counts.

    Args:
        masks: of the model.
        counted: the names of those that are weights of the rule.
        left: from a masked weight to which of its entries are left, bool.
        finals: name -> the sparsity that is asked of this weight in the end, where one is.
    """
    shown = [(name, weight) for name, weight in masks.items() if name in counted]
    kept = counts(left(weight) for _, weight in shown)
    return [
        WeightReport(
            name,
            tuple(weight.mask.shape),
            weight.mask.numel(),
            weight.mask.numel() - some,
            float(weight.threshold),
            finals.get(name),
        )
        for (name, weight), some in zip(shown, kept, strict=True)
    ]
