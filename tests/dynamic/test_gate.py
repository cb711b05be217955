"""The predictor: who wins, what passes through it, and what its penalty adds to the gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_prune.dynamic.gate import ChannelGate, pooled, winners


def slowly(saliency: Tensor, kept: int) -> Tensor:
    """Return the winners of each example one after the other: the largest, of equals the first."""
    won = torch.zeros_like(saliency, dtype=torch.bool)
    for row, values in enumerate(saliency.tolist()):
        order = sorted(range(len(values)), key=lambda i: (-values[i], i))
        won[row, order[:kept]] = True
    return won


@pytest.mark.parametrize("kept", [1, 3, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_exactly_so_many_win_in_each_example(kept: int, ties: bool) -> None:
    torch.manual_seed(kept)
    saliency = torch.randint(0, 3, (9, 7)).float() if ties else torch.rand(9, 7)
    won = winners(saliency, torch.tensor(kept))
    assert torch.equal(won, slowly(saliency, kept))
    assert won.sum(1).tolist() == [kept] * 9


def gate(inputs: int = 3, outputs: int = 5, kept: int = 2) -> ChannelGate:
    made = ChannelGate(inputs, outputs, torch.zeros(()))
    made.draw(1)
    made.kept.fill_(kept)
    return made


@pytest.mark.parametrize("shape", [(4, 3, 6, 6), (4, 3, 7)])
def test_what_it_says_is_the_formula(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, made = torch.randn(shape), gate()
    means = torch.stack([torch.stack([channel.abs().mean() for channel in example]) for example in x])
    g = (means @ made.weight.T + made.bias).clamp(min=0)
    assert torch.allclose(pooled(x), means)
    assert torch.allclose(made(x), g * slowly(g, 2))
    assert bool((made.bias == 1).all())


def test_gradients_flow_through_winners_alone() -> None:
    torch.manual_seed(0)
    x, made = torch.randn(1, 3, 4, 4), gate()
    said = made(x)
    said.sum().backward()
    won = said[0] > 0
    assert int(won.sum()) == 2
    assert made.bias.grad is not None
    assert torch.equal(made.bias.grad != 0, won)
    assert made.weight.grad is not None
    assert torch.equal((made.weight.grad != 0).any(1), won)


@pytest.mark.parametrize("size", [1, 6])
def test_the_penalty_adds_the_gradient_of_the_mean(size: int) -> None:
    torch.manual_seed(0)
    x, made, strength = torch.rand(size, 3, 4, 4, requires_grad=True), gate(), 0.3
    said = made(x)
    saliency = F.relu(F.linear(pooled(x), made.weight, made.bias))
    (said.square().sum() + strength * saliency.mean()).backward()
    assert made.weight.grad is not None
    assert x.grad is not None
    expected = made.weight.grad.clone(), x.grad.clone()
    made.weight.grad = x.grad = None
    made.strength = torch.tensor(strength)
    made(x, training=True).square().sum().backward()
    for found, want in zip((made.weight.grad, x.grad), expected, strict=True):
        torch.testing.assert_close(found, want)
    assert made.level is not None
    assert float(made.level) == pytest.approx(float(saliency.detach().mean()))
    made.weight.grad = None
    made(x, training=False).square().sum().backward()
    after: Any = made.weight.grad
    assert not torch.allclose(after, expected[0])  # in evaluation there is none


def test_it_is_computed_in_full_precision_under_autocast() -> None:
    x, made = torch.rand(2, 3, 4, 4), gate()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(x), made(x.float()))
        assert made(x).dtype == torch.float32
