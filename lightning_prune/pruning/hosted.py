"""Weights for criteria that compute on the host: those on a device are brought there together."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_prune.criterion import Criterion, HostedCriterion, SitedCriterion
from lightning_prune.masks import MaskedWeight
from lightning_prune.ranking import on_host


def hosted(criterion: Criterion | SitedCriterion, weights: Sequence[MaskedWeight]) -> Criterion | SitedCriterion:
    """Return a criterion for one update, with the weights of a device brought to the host if it looks at them there.

    Pieces are left to be asked for one by one.
    """
    if not isinstance(criterion, HostedCriterion):
        return criterion
    there = [w for w in weights if w.shard is None and w.parameter.device.type != "cpu"]
    here = on_host([w.canonical(w.ranked()) for w in there])
    return criterion.hosted({w.target.name: values for w, values in zip(there, here, strict=True)})
