"""What a criterion remembers of a weight, in a state that any number of processes reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_prune.criterion import ObservingCriterion
from lightning_prune.masks import MaskedWeight
from lightning_prune.pruning.asking import gathers
from lightning_prune.shards import whole_on_host


def whole_memory(weight: MaskedWeight, criterion: Any) -> dict[str, Tensor]:
    """Return what a criterion remembers of a weight; of a piece that of the whole. Single numbers are as they are."""
    if weight.shard is None or gathers(criterion, weight):
        if not isinstance(criterion, ObservingCriterion):
            return dict(weight.memory)
        return {key: value.clone() for key, value in weight.memory.items()}  # sums are added to in place
    return {
        key: weight.canonical(whole_on_host(weight.restore(value), weight.shard)) if value.dim() else value.clone()
        for key, value in weight.memory.items()
    }


def memory_here(weight: MaskedWeight, criterion: Any, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a criterion remembers of what lies here, from what `whole_memory` has given."""
    device = weight.values.device
    if weight.shard is None or gathers(criterion, weight):
        return {key: value.to(device, copy=True) for key, value in saved.items()}
    pieces = {
        key: weight.canonical(weight.piece(weight.restore(value))).contiguous() if value.dim() else value
        for key, value in saved.items()
    }
    return {key: value.to(device, copy=True) for key, value in pieces.items()}
