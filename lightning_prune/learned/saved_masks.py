"""The masks in a state of learned masks: those of the weights once they are final, before that made of `keeps`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.learned.masked_units import MaskedUnits
from lightning_prune.learned.masked_weights import MaskedWeights
from lightning_prune.masks import MaskedWeight
from lightning_prune.pruning import saved_masks


def masks_to_save(weights: Mapping[str, MaskedWeight], final: bool) -> dict[str, dict[str, Any]]:
    """Return what a state says of masks; those that are not final are in no weight, but follow from `keeps`."""
    if final:
        return saved_masks.to_save(weights)
    return saved_masks.described({name: weight.mask for name, weight in weights.items()})


def restored_masks(
    state: Mapping[str, Any], sites: MaskedUnits | MaskedWeights, keeps: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the masks by the names of their weights.

    Args:
        state: that was checked, and is not stripped.
        sites: where the masks are.
        keeps: those of now, for their devices.

    Raises:
        ValueError: the weights, or the units that are kept, are not those of the state's masks.
    """
    weights = sites.masks
    if state["finished"] or state["version"] == 1:
        return saved_masks.from_weights(state, {name: w.parameter.detach() for name, w in weights.items()})
    saved = [keep.to(own.device) for keep, own in zip(state["keeps"], keeps, strict=True)]
    masks = {name: torch.ones_like(weight.mask) for name, weight in weights.items()}
    masks |= {d.weight.target.name: d.mask for d in sites.decisions(saved, [0.0] * len(saved))}
    other = saved_masks.differing(state, masks)
    if other:
        raise ValueError(f"the pruning state: keeps are not those of its masks, of '{next(iter(other))}' for one")
    return masks
