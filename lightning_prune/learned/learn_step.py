"""One step of the logits, along the gradients of loss and regularizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_prune.learned.logits import Logits
from lightning_prune.ranking import is_finite, read


def learn(
    logits: Logits,
    penalty_of_now: Callable[[], Tensor],
    numbers: Sequence[int],
    loss_scale: float,
    task_share: float | None,
) -> Tensor | None:
    """Step the logits of groups, and return the regularizer's value, a scalar.

    Args:
        logits: with the gradients of the loss.
        penalty_of_now: returns the regularizer's value as a function of the logits.
        numbers: of the groups.
        loss_scale: by which the gradients have been multiplied.
        task_share: the share of the loss, the rest being the regularizer's; None for their plain sum.

    Returns:
        None, with nothing done, if a scaled loss has overflowed: its scaler skips the step as well.

    Raises:
        ValueError: a gradient is not finite and no scale is to blame; the message names the group.
    """
    logits.forget_draws()
    if diverged := logits.reduce_gradients(numbers, loss_scale):
        logits.drop_gradients(numbers)
        if loss_scale == 1.0:
            raise not_finite(f"the gradient of the learned mask of '{diverged[0]}'")
        return None
    values = [logits.values[number] for number in numbers]
    with torch.enable_grad():
        penalty = penalty_of_now()
        grads = torch.autograd.grad(penalty, values, allow_unused=True)
    task, rest = (1.0, 1.0) if task_share is None else (task_share, 1.0 - task_share)
    for value, grad in zip(values, grads, strict=True):
        assert value.grad is not None
        value.grad = task * value.grad + (0.0 if grad is None else rest * grad)
    logits.advance(numbers)
    return penalty.detach()


def check_weights(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names the first weight that is not finite; those on a device are read together."""
    found = read([is_finite(weight.detach()) for weight in weights.values()])
    for name, finite in zip(weights, found, strict=True):
        if not finite:
            raise not_finite(f"the weight '{name}'")


def not_finite(what: str) -> ValueError:
    """Return the error of something that nothing can be learned of."""
    return ValueError(f"{what} is not finite, so nothing can be learned of it; look for a diverged loss or an overflow")
