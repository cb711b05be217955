"""The gradients of the logits: against finite differences, of the mixed loss, and under checkpointing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.gate import Sigmoid
from lightning_prune.mask_regularizer import Binarizer
from tests.learned.helpers import attached, on, perceptron


def test_gradients_of_the_logits_against_finite_differences() -> None:
    model = perceptron(nn.Tanh()).double().train()
    masks = attached(model, torch.zeros(2, 6, dtype=torch.float64), gate=Sigmoid(b=5.0))
    here, x = on(masks), torch.randn(9, 6, dtype=torch.float64)
    here.logits.values = [v.detach().double().requires_grad_() for v in here.logits.values]

    def loss(*values: Tensor) -> Tensor:
        here.logits.values = list(values)
        here.logits.forget_draws()
        here.logits._draws = [0] * len(values)
        return model(x).square().mean()

    assert torch.autograd.gradcheck(loss, tuple(here.logits.values))


@pytest.mark.parametrize("task_share", [None, 0.1])
def test_the_step_is_along_the_gradient_of_the_mixed_loss(task_share: float | None) -> None:
    """Gradients of task and regularizer by hand, mixed as the arguments say; the weights' share of it too."""
    model = perceptron(nn.ReLU()).train()
    masks = attached(model, torch.zeros(2, 6), task_share=task_share, mask_regularizer=Binarizer(0.7))
    here = on(masks)
    model(torch.randn(9, 6)).square().mean().backward()
    task = [v.grad.clone() for v in here.logits.values if v.grad is not None]
    weights = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    p = torch.cat([torch.sigmoid(5 * v) for v in here.logits.values])
    rest = torch.autograd.grad(-((p - 0.7) ** 2).mean(), here.logits.values)
    taken: list[Tensor] = []
    here.logits.advance = lambda numbers: taken.extend(here.logits.values[n].grad.clone() for n in numbers)  # type: ignore
    masks.before_step()
    share, other = (1.0, 1.0) if task_share is None else (task_share, 1 - task_share)
    for found, t, r in zip(taken, task, rest, strict=True):
        assert torch.allclose(found, share * t + other * r)
    for found, before in zip((p.grad for p in model.parameters()), weights, strict=True):
        assert found is not None
        assert torch.allclose(found, share * before)


def test_activation_checkpointing_repeats_the_draw() -> None:
    from torch.utils.checkpoint import checkpoint

    def grads(again: bool) -> list[Tensor]:
        model = perceptron(nn.ReLU()).train()
        masks = attached(model, torch.zeros(2, 6))
        x = torch.linspace(-1, 1, 30).view(5, 6).requires_grad_()
        out = checkpoint(model, x, use_reentrant=False) if again else model(x)
        out.square().sum().backward()
        found = [v.grad for v in on(masks).logits.values] + [p.grad for p in model.parameters()]
        return [grad for grad in found if grad is not None]

    for one, other in zip(grads(False), grads(True), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
