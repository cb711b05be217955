"""How far a filter lies from the others of its layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import of_each_weight

_DISTANCES = 1 << 22
"""How many distances are held at a time."""


@dataclass(frozen=True)
class GeometricMedian:
    """Score every weight of a filter by the sum of the filter's Euclidean distances to all filters of its layer.

    The filters with the smallest sums lie near the layer's geometric median, and the others can stand in for them.
    Filters that are zero throughout, because they were pruned, do not count: a masked layer scores like a shrunk one.
    The sums grow with a layer's size, so layers compare only where each is ranked by itself (`Uniform`, `ERK`).
    Source: FPGM, He et al. 2019, arXiv 1811.00250.
    """

    of_outputs: ClassVar[bool] = True

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return every filter's sum of distances for each of its weights, in float32 at least."""
        filters = weight.detach().reshape(weight.shape[:1].numel(), -1)
        filters = filters.to(torch.promote_types(weight.dtype, torch.float32))
        living = filters.any(1)
        if filters.device.type == "cpu":
            others, counted = filters[living], None
        else:  # to leave dead filters out would wait for the device, once a weight
            others, counted = filters, living
        parts = filters.split(max(1, _DISTANCES // max(1, len(others))))
        return of_each_weight(torch.cat([_sums(part, others, counted) for part in parts]), weight)


def _sums(filters: Tensor, others: Tensor, counted: Tensor | None) -> Tensor:
    """Return the sum of each filter's distances to others, or to those that count; the distances are let go."""
    distances = torch.cdist(filters, others)
    return (distances if counted is None else distances.mul_(counted)).sum(1)
