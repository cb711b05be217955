"""What a report says of each weight, read off the weights themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from lightning_prune.masks import MaskedWeight, Masks
from lightning_prune.ranking import count_nonzero, counts
from lightning_prune.report import WeightReport
from lightning_prune.shards import each


def weight_reports(
    masks: Masks,
    counted: Collection[str],
    left: Callable[[MaskedWeight], Tensor] | None = None,
    finals: Mapping[str, float] = {},
    counting: bool = True,
) -> list[WeightReport]:
    """Return the numbers of each weight that counts.

    Args:
        masks: of the model.
        counted: the names of those that are weights of the rule.
        left: from a masked weight to which of its entries are left, bool; None for what is not zero in the model,
            whatever the mask says.
        finals: name -> the sparsity that is asked of this weight in the end, where one is.
        counting: look at the weights, on all ranks; otherwise what masks leave is taken to be left.
    """
    shown = [(name, weight) for name, weight in masks.items() if name in counted]
    if not counting:
        kept = [weight.size - weight.pruned for _, weight in shown]
    elif left is None:
        kept = count_nonzero([weight.values for _, weight in shown])
    else:
        kept = counts(left(weight) for _, weight in shown)
    kept = each(kept, [weight.shard for _, weight in shown]) if counting else kept
    return [
        WeightReport(
            name,
            tuple(weight.shape),
            weight.size,
            weight.size - some,
            float(weight.threshold),
            finals.get(name),
        )
        for (name, weight), some in zip(shown, kept, strict=True)
    ]
