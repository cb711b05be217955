"""What one may expect where whole units are taken out. A case raises where a tool does not keep to its first line."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .tools import Tool, example, parameters

HALF = 0.5


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(16, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 16, 1)
        )
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(5, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.one, self.other = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.other.weight = self.one.weight
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.other(self.one(self.into(x).relu()).relu()).relu())


class Unreached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.middle, self.auxiliary = nn.Linear(12, 16), nn.Linear(16, 40), nn.Linear(16, 3)
        self.out = nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.middle(self.into(x).relu()).relu())


def _smaller(tool: Tool, model: nn.Module, x: Tensor) -> nn.Module:
    """Take half out, and see that what is left is smaller and still computes outputs of the same shape."""
    assert tool.take_out
    shape, before = model(x).shape, parameters(model)
    smaller = tool.take_out(model, x, HALF)
    assert smaller(x).shape == shape
    assert parameters(smaller) < 0.8 * before, (parameters(smaller), before)
    return smaller


def residual(tool: Tool, folder: Path) -> None:
    """A net with a residual stream and a depthwise convolution gets smaller"""
    _smaller(tool, Residual(), example(2, 3, 8, 8))


def recurrent(tool: Tool, folder: Path) -> None:
    """An LSTM gets smaller"""
    _smaller(tool, Recurrent(), example(2, 7, 5))


def encoder(tool: Tool, folder: Path) -> None:
    """An `nn.TransformerEncoderLayer` gets smaller, and computes the same with and without its fast path"""
    smaller = _smaller(tool, Encoder(), example(2, 7, 16)).eval()
    x = example(2, 7, 16)
    with torch.no_grad():
        fast = smaller(x)
    assert torch.allclose(fast, smaller(x), atol=1e-5)


def frozen(tool: Tool, folder: Path) -> None:
    """A net whose first layers are frozen gets smaller"""
    model = Residual()
    model.stem.requires_grad_(False)
    _smaller(tool, model, example(2, 3, 8, 8))


def tied(tool: Tool, folder: Path) -> None:
    """A net with a weight that two layers share gets smaller, and they share it still"""
    smaller = _smaller(tool, Tied(), example(2, 12))
    assert smaller.get_parameter("one.weight") is smaller.get_parameter("other.weight")


def unreached(tool: Tool, folder: Path) -> None:
    """A layer that the example input does not reach still fits the layer that it reads"""
    smaller = _smaller(tool, Unreached(), x := example(2, 12))
    read = smaller.get_submodule("into")(x).relu()
    assert smaller.get_submodule("auxiliary")(read).shape == (2, 3)


CASES = (residual, recurrent, encoder, frozen, tied, unreached)
