"""New masks written to many weights: what the host has to know of them is counted together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_prune.masks.masked_weight import MaskedWeight
from lightning_prune.masks.zeros import zero_counting
from lightning_prune.ranking import counts
from lightning_prune.shards import each


def write_all(new: Sequence[tuple[MaskedWeight, Tensor, float]]) -> int:
    """Write a new mask and threshold to each weight, and return how many entries of all masks changed.

    Masks on a device are counted before the first is written, so that it is waited for once and not for each weight. On
    the CPU a chunk of a mask is counted while its weight is set to zero; entries that were pruned before are not set
    again where nothing has been written to the weight since.
    """
    here = [some for some in new if some[0].dense is None and some[0].values.device.type == "cpu"]
    here = [some for some in here if some[0].mask.device.type == some[1].device.type == "cpu"]
    zeros = [weight.mask if weight.pruned and not weight.written_to else None for weight, _, _ in here]
    kept = zero_counting([weight.values for weight, _, _ in here], [mask for _, mask, _ in here], zeros)
    kept = each(kept, [weight.shard for weight, _, _ in here])
    changed = 0
    for (weight, mask, threshold), few in zip(here, kept, strict=True):
        changed += weight.take(mask, threshold, few)
        weight.seen = weight.state
    ids = {id(weight) for weight, _, _ in here}
    return changed + _write([some for some in new if id(some[0]) not in ids])


def _write(new: Sequence[tuple[MaskedWeight, Tensor, float]]) -> int:
    masks = [mask.to(weight.mask.device) for weight, mask, _ in new]
    number = len(masks)
    moved = (mask != weight.mask for mask, (weight, _, _) in zip(masks, new, strict=True) if weight.dense is not None)
    shards = [weight.shard for weight, _, _ in new]
    shards += [weight.shard for weight, _, _ in new if weight.dense is not None]
    found = each(counts(flags for some in (masks, moved) for flags in some), shards)
    kept, changes = found[:number], iter(found[number:])
    changed = 0
    for (weight, _, threshold), mask, few in zip(new, masks, kept, strict=True):
        changed += weight.write(mask, threshold, few, None if weight.dense is None else next(changes))
    return changed
