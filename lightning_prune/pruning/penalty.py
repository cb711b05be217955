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
    with torch.enable_grad():
        values = [
            regularizer(weight.canonical(weight.parameter), float(weight.threshold)) for weight, regularizer in asked
        ]
        value = torch.stack(values).sum()
        grads = torch.autograd.grad(value, [weight.parameter for weight in trained], allow_unused=True)
    for weight, grad in zip(trained, grads, strict=True):
        if grad is None:
            continue
        if weight.parameter.grad is None:
            weight.parameter.grad = grad * scale
        else:
            weight.parameter.grad.add_(grad, alpha=scale)
    return value.detach()
