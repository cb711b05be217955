"""New values for the weights that stay at an update, from a criterion that knows better ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.criterion import CorrectingCriterion, Site
from lightning_prune.masks import MaskedWeight
from lightning_prune.pruning.asking import gathers, seen_of
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.ranking import ends
from lightning_prune.selection import check_found
from lightning_prune.shards import whole


def corrected(criterion: Any, decisions: Sequence[Decision]) -> list[tuple[MaskedWeight, Tensor]]:
    """Return weights with new values, where an update takes more of them and the criterion corrects what stays.

    Nothing is written: the values are to be put in once the masks are.

    Raises:
        ValueError: a new value is not finite; the message names the weight.
    """
    if not isinstance(criterion, CorrectingCriterion):
        return []
    idea: Any = criterion
    found: list[tuple[MaskedWeight, Tensor]] = []
    for decision in decisions:
        weight = decision.weight
        if not weight.memory or decision.mask is weight.mask:
            continue
        asked = idea.at(Site(weight.target.name, 0, weight.memory)) if hasattr(idea, "at") else idea
        mask = decision.mask.to(weight.values.device)
        mask = whole(mask, weight.shard) if gathers(idea, weight) else mask
        with torch.no_grad():
            values = weight.restore(asked.corrected(seen_of(weight, idea)[0], weight.canonical(mask)))
        found.append((weight, weight.piece(values) if gathers(idea, weight) else values))
    finite = [(weight.target.name, ends(values)) for weight, values in found]
    check_found(finite, [weight.shard for weight, _ in found], _non_finite)
    return found


def _non_finite(name: str) -> ValueError:
    return ValueError(
        f"what the criterion puts in the place of the weights of '{name}' that stay is not finite; look for a diverged "
        "loss or an overflow before this step, or give it more damping"
    )


def put_in(better: Sequence[tuple[MaskedWeight, Tensor]]) -> None:
    """Write new values to weights; pruned entries stay zero."""
    for weight, values in better:
        weight.put(values)
