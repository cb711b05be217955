"""What a criterion is asked for one weight: its scores, and to remember the weight once the masks are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_prune.criterion import Criterion, RememberingCriterion, Site, SitedCriterion
from lightning_prune.masks import MaskedWeight
from lightning_prune.shards import grad_of, sum_of, whole


def scores_of(
    criterion: Criterion | SitedCriterion, weight: MaskedWeight, step: int, sparsity: float, norm: Tensor | None = None
) -> Tensor:
    """Return the criterion's scores of a weight, output dimension first: of the piece of it that lies here.

    One that scores whole outputs is asked for every expert of a stack by itself, with a memory of its own. One that
    does not score each entry by itself gets the whole weight, on every rank, and all scores of it are returned.

    Raises:
        ValueError: they have another shape than the weight, or are no floats.
    """
    values, grad = seen_of(weight, criterion)
    if at_once(criterion, weight):
        site = Site(weight.target.name, step, weight.memory, sparsity, norm, **part_of(criterion, weight))
        return _scores(criterion, site, values, grad, True)
    grads = [None] * weight.experts if grad is None else weight.parts(grad)
    scores: list[Tensor] = []
    for number, (part, its_grad) in enumerate(zip(weight.parts(values), grads, strict=True)):
        own = f"{number}/"
        memory = own_part(weight.memory, own)
        site = Site(weight.target.name, step, memory, sparsity, norm, expert=number)
        scores.append(_scores(criterion, site, part, its_grad))
        weight.memory.update({own + key: kept for key, kept in memory.items()})
    return torch.cat(scores)


def remember(criterion: Criterion | SitedCriterion, weight: MaskedWeight, step: int) -> None:
    """Have the criterion move on what it remembers of a weight, if it does so apart from its scores."""
    if not at_once(criterion, weight) or not isinstance(criterion, RememberingCriterion):
        return
    asked: Any = criterion
    if isinstance(criterion, SitedCriterion):
        asked = criterion.at(replace(Site(weight.target.name, step, weight.memory), **part_of(criterion, weight)))
    with torch.no_grad():
        asked.remember(*seen_of(weight, criterion))


def at_once(criterion: Criterion | SitedCriterion, weight: MaskedWeight) -> bool:
    """Return whether a criterion gets all of a weight, not each expert by itself."""
    return weight.experts == 1 or not getattr(criterion, "of_outputs", False)


def own_part(memory: Mapping[str, Tensor], own: str) -> dict[str, Tensor]:
    """Return the part of a memory whose keys begin with `own`, without that."""
    return {key.removeprefix(own): value for key, value in memory.items() if key.startswith(own)}


def gathers(criterion: Criterion | SitedCriterion, weight: MaskedWeight) -> bool:
    """Return whether a criterion needs the whole of a weight that is taken apart."""
    return weight.shard is not None and not getattr(criterion, "of_entries", False)


def part_of(criterion: Criterion | SitedCriterion, weight: MaskedWeight) -> dict[str, Any]:
    """Return what a `Site` says of the piece of a weight that a criterion gets."""
    shard = weight.shard
    if shard is None or gathers(criterion, weight):
        return {}
    layout = weight.target.layout
    order = range(len(shard.box)) if layout is None else layout.order
    return {"total": partial(sum_of, shard=shard), "place": partial(shard.place, order=order)}


def seen_of(weight: MaskedWeight, criterion: Criterion | SitedCriterion) -> tuple[Tensor, Tensor | None]:
    """Return what a criterion sees of a weight."""
    values, grad = weight.ranked(), grad_of(weight.parameter)
    if gathers(criterion, weight):
        values, grad = whole(values, weight.shard), None if grad is None else whole(grad, weight.shard)
    return weight.canonical(values), None if grad is None else weight.canonical(grad)


def _scores(
    criterion: Criterion | SitedCriterion, site: Site, values: Tensor, grad: Tensor | None, apart: bool = False
) -> Tensor:
    asked = criterion.at(site) if isinstance(criterion, SitedCriterion) else criterion
    with torch.no_grad():
        ask = asked.score if apart and isinstance(asked, RememberingCriterion) else asked
        scores = ask(values, grad).detach()
    if scores.shape != values.shape or not scores.is_floating_point():
        raise ValueError(
            f"{type(criterion).__name__} must give a float score for every entry of '{site.name}', "
            f"of shape {tuple(values.shape)}; it gave {scores.dtype} of shape {tuple(scores.shape)}"
        )
    if getattr(criterion, "of_outputs", False) and scores.dim() > 1 and scores.device.type != "cpu":
        # One score an output takes less of a device's memory; on the host it would be written out to be ranked.
        return scores[(slice(None), *[slice(1)] * (scores.dim() - 1))].clone().expand(scores.shape)
    return scores
