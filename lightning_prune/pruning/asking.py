"""What a criterion is asked for one weight: its scores, and to remember the weight once the masks are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_prune.criterion import Criterion, RememberingCriterion, Site, SitedCriterion
from lightning_prune.masks import MaskedWeight


def scores_of(
    criterion: Criterion | SitedCriterion, weight: MaskedWeight, step: int, sparsity: float, norm: Tensor | None = None
) -> Tensor:
    """Return the criterion's scores of a weight, output dimension first.

    One that scores whole outputs is asked for every expert of a stack by itself, with a memory of its own.

    Raises:
        ValueError: they have another shape than the weight, or are no floats.
    """
    values, grad = _seen(weight)
    if _at_once(criterion, weight):
        return _scores(criterion, Site(weight.target.name, step, weight.memory, sparsity, norm), values, grad, True)
    grads = [None] * weight.experts if grad is None else weight.parts(grad)
    scores: list[Tensor] = []
    for number, (part, its_grad) in enumerate(zip(weight.parts(values), grads, strict=True)):
        own = f"{number}/"
        memory = {key.removeprefix(own): kept for key, kept in weight.memory.items() if key.startswith(own)}
        site = Site(weight.target.name, step, memory, sparsity, norm)
        scores.append(_scores(criterion, site, part, its_grad))
        weight.memory.update({own + key: kept for key, kept in memory.items()})
    return torch.cat(scores)


def remember(criterion: Criterion | SitedCriterion, weight: MaskedWeight, step: int) -> None:
    """Have the criterion move on what it remembers of a weight, if it does so apart from its scores."""
    if not _at_once(criterion, weight) or not isinstance(criterion, RememberingCriterion):
        return
    asked: Any = criterion
    if isinstance(criterion, SitedCriterion):
        asked = criterion.at(Site(weight.target.name, step, weight.memory))
    with torch.no_grad():
        asked.remember(*_seen(weight))


def _at_once(criterion: Criterion | SitedCriterion, weight: MaskedWeight) -> bool:
    return weight.experts == 1 or not getattr(criterion, "of_outputs", False)


def _seen(weight: MaskedWeight) -> tuple[Tensor, Tensor | None]:
    """Return what a criterion sees of a weight."""
    grad = weight.parameter.grad
    return weight.canonical(weight.ranked()), None if grad is None else weight.canonical(grad)


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
