"""New masks written to many weights: what the host has to know of them is counted together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_prune.masks.masked_weight import MaskedWeight
from lightning_prune.ranking import counts


def write_all(new: Sequence[tuple[MaskedWeight, Tensor, float]]) -> int:
    """Write a new mask and threshold to each weight, and return how many entries of all masks changed.

    Every mask is counted before the first is written, so that a device is waited for once and not for each weight.
    """
    masks = [mask.to(weight.mask.device) for weight, mask, _ in new]
    number = len(masks)
    moved = (mask != weight.mask for mask, (weight, _, _) in zip(masks, new, strict=True) if weight.dense is not None)
    found = counts(flags for some in (masks, moved) for flags in some)
    kept, changes = found[:number], iter(found[number:])
    changed = 0
    for (weight, _, threshold), mask, few in zip(new, masks, kept, strict=True):
        changed += weight.write(mask, threshold, few, None if weight.dense is None else next(changes))
    return changed
