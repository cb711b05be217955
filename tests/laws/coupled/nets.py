"""Nets whose units are slices of many weights, and `Channel` for each of them without tracing it again."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.coupling.units import Coupling
from lightning_prune.pattern import Channel

pytest.importorskip("torch_pruning")


class Convolutions(nn.Module):
    """A residual stream, a depthwise convolution, norms, and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 10, 1, bias=False),
            nn.BatchNorm2d(10),
            nn.ReLU(),
            nn.Conv2d(10, 10, 3, padding=1, groups=10, bias=False),
            nn.BatchNorm2d(10),
            nn.Conv2d(10, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.last = nn.Sequential(nn.ConvTranspose2d(8, 6, 2), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.last(x + self.body(x)).mean((2, 3)))


class Halves(nn.Module):
    """One layer computes two groups of units: each half of its outputs has readers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(6, 16)
        self.one, self.other = nn.Linear(8, 5), nn.Linear(8, 7)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.both(x).relu().chunk(2, 1)
        return self.head(torch.cat([self.one(one).relu(), self.other(other).relu()], 1))


class Recurrent(nn.Module):
    """Two layers of an LSTM, and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4))


EXAMPLE = Channel(example_inputs=torch.zeros(3, 7))
"""For `perceptron`, and for any other net that takes 7 features."""

NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolutions": (Convolutions, (2, 3, 6, 6)),
    "halves": (Halves, (3, 6)),
    "perceptron": (perceptron, (3, 7)),
    "recurrent": (Recurrent, (2, 4, 5)),
}
HEADS = {"convolutions": "head.weight", "halves": "head.weight", "perceptron": "5.weight", "recurrent": "head.weight"}
NAMES = pytest.mark.parametrize("name", NETS)


def net(name: str, seed: int = 0) -> Any:
    """Return one of the nets, with norms and biases that are no longer 1 and 0."""
    torch.manual_seed(seed)
    made: nn.Module = NETS[name][0]()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@cache
def coupling(name: str) -> Coupling:
    """What `Channel` finds in a net; it does not depend on the weights, so that one trace serves all tests."""
    return Channel(example_inputs=torch.zeros(NETS[name][1])).couple(net(name))


@dataclass(frozen=True)
class Traced:
    """`Channel` for one of the nets, without tracing it again."""

    name: str
    multiple: int = 1
    normalize: bool = True
    readers: bool = False
    example_inputs: Any = field(default=None, repr=False)

    def couple(self, model: nn.Module) -> Coupling:
        return coupling(self.name)


def move(model: nn.Module, seed: int) -> None:
    """Move weights that are not zero, and put gradients on."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator) * (parameter != 0))
            parameter.grad = torch.randn(parameter.shape, generator=generator)
