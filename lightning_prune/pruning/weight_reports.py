"""What a report says of each weight, read off the weights themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.ranking import count_nonzero, counts
from lightning_prune.report import WeightReport


def weight_reports(
    masks: Masks,
    counted: Collection[str],
    left: Callable[[MaskedWeight], Tensor] | None = None,
    finals: Mapping[str, float] = {},
) -> list[WeightReport]:
    """Return the numbers of each weight that counts.

    Args:
        masks: of the model.
        counted: the names of those that are weights of the rule.
        left: from a masked weight to which of its entries are left, bool; None for what is not zero in the model,
            whatever the mask says.
        finals: name -> the sparsity that is asked of this weight in the end, where one is.
    """
    shown = [(name, weight) for name, weight in masks.items() if name in counted]
    if left is None:
        kept = count_nonzero([weight.parameter for _, weight in shown])
    else:
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
