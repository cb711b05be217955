"""The regularizer's gradient, added to the gradients that are about to be stepped on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.masks import MaskedWeight
from lightning_prune.regularizer import Regularizer


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
    return torch.stack(values).sum()


def _add(weight: MaskedWeight, regularizer: Regularizer, scale: float) -> Tensor:
    """Add the gradient of one weight, so that never more than one is held, and return the regularizer's value."""
    parameter = weight.parameter
    with torch.enable_grad():
        value = regularizer(weight.canonical(parameter), float(weight.threshold))
        (grad,) = torch.autograd.grad(value, [parameter], allow_unused=True) if value.requires_grad else (None,)
    if grad is not None:
        if parameter.grad is None:
            parameter.grad = grad * scale
        else:
            parameter.grad.add_(grad, alpha=scale)
    return value.detach()
