"""The regularizer's gradient, added to the gradients that are about to be stepped on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.masks import MaskedWeight
from lightning_prune.regularizer import Regularizer
from lightning_prune.shards import like, total_of, whole


def add_gradient(asked: Sequence[tuple[MaskedWeight, Regularizer]], scale: float) -> Tensor | None:
    """Add `scale` times the gradient of each weight's regularizer to the weights' gradients, and return its value.

    Once per optimizer step and after gradients are accumulated and reduced, the sum is the gradient of
    loss + regularizer, whatever was done to the loss before its backward.

    Returns:
        The value as a 0-dim tensor, or None if no weight is trained or none got a gradient: there was no loss.
    """
    asked = [(weight, regularizer) for weight, regularizer in asked if weight.parameter.requires_grad]
    trained = [weight for weight, _ in asked]
    if all(weight.parameter.grad is None for weight in trained):
        return None
    values = [_add(weight, regularizer, scale) for weight, regularizer in asked]
    of_pieces = [part(weight, regularizer) for weight, regularizer in asked]
    if any(of_pieces):
        return total_of(values, [w.shard if p else None for (w, _), p in zip(asked, of_pieces, strict=True)])
    return torch.stack(values).sum()


def part(weight: MaskedWeight, regularizer: Regularizer) -> bool:
    """Return whether a regularizer is asked for the piece of a weight that lies here, not for the whole."""
    return weight.shard is not None and getattr(regularizer, "of_entries", False)


def _add(weight: MaskedWeight, regularizer: Regularizer, scale: float) -> Tensor:
    """Add the gradient of one weight, so that never more than one is held, and return the regularizer's value."""
    gathers = weight.shard is not None and not part(weight, regularizer)
    leaf = weight.parameter if weight.parameter is weight.values else weight.values.detach().requires_grad_()
    if gathers:
        leaf = whole(weight.values.detach(), weight.shard).requires_grad_()
    with torch.enable_grad():
        value = regularizer(weight.canonical(leaf), float(weight.threshold))
        (grad,) = torch.autograd.grad(value, [leaf], allow_unused=True) if value.requires_grad else (None,)
    if grad is not None:
        _add_to(weight, weight.shard.piece(grad) if gathers and weight.shard else grad, scale)
    return value.detach()


def _add_to(weight: MaskedWeight, grad: Tensor, scale: float) -> None:
    known = weight.grad
    if known is not None:
        known.add_(grad, alpha=scale)
    else:
        weight.parameter.grad = like(grad * scale, weight.parameter)
