"""What the tests of gates share: small nets with a norm behind each convolution, and gates on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.dynamic import DynamicGates
from lightning_prune.schedule import OneShot, Polynomial

HALF = Polynomial(0.5, 2, 10, 2)
"""Updates at 2, 4, 6, 8 and 10."""


def chain(seed: int = 0) -> nn.Sequential:
    """Return two convolutions of 8 and 12 channels, and a linear layer behind them; it takes (n, 3, 8, 8)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 16, 5),
    )


def sequences(seed: int = 0) -> nn.Sequential:
    """Return two convolutions of sequences with a GroupNorm of single channels and a norm without a scale."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(4, 6, 3), nn.GroupNorm(6, 6), nn.ReLU(), nn.Conv1d(6, 10, 3), nn.BatchNorm1d(10, affine=False)
    )


class Stream(nn.Module):
    """A residual stream and a concatenation: what reads the sum reads every channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.one, self.norm1 = nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8)
        self.two, self.norm2 = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.left, self.norm3 = nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.norm2(self.two(self.norm1(self.one(x)).relu()))
        return self.last(torch.cat([x, self.norm3(self.left(x)).relu()], 1))


def batch(size: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def gated(model: nn.Module, example: Any, schedule: Any = HALF, **ideas: Any) -> DynamicGates:
    """Return gates that are on a model, for a run of 20 steps."""
    gates = DynamicGates(schedule, example_inputs=example, **ideas)
    gates.attach(model, 20)
    return gates


def finished(sparsity: float = 0.5, seed: int = 0) -> nn.Sequential:
    """Return `chain` with gates in it that have not learned anything."""
    model = chain(seed)
    gates = gated(model, batch(), OneShot(sparsity, 0))
    gates.after_step(0)
    gates.strip()
    return model.eval()


def train(model: nn.Module, gates: DynamicGates, steps: range, optimizer: Any = None) -> Any:
    """Take steps on batches that follow from their numbers, and return the optimizer."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for step in steps:
        optimizer.zero_grad()
        gates.before_forward()
        (model(batch(8, step)) - 1.0).square().mean().backward()
        gates.before_step(optimizer)
        optimizer.step()
        gates.after_step(step + 1, [optimizer])
    return optimizer


def same(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two models have the same tensors, to the bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
