"""Masks of the device beside those of the CPU, to the bit, over four updates; gradients are the same on both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpu_sections.tools import Table, Where, rows_of
from lightning_prune import Pruner
from lightning_prune.criterion import FilterNorm, FirstOrderDelta, GeometricMedian, Random, SecondOrderDelta
from lightning_prune.pattern import Block, Channel, Column, Kernel, NofM, Row
from lightning_prune.regularizer import L1, Growing
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import ERK, Uniform
from lightning_prune.selection import Histogram, Sort

IDEAS: dict[str, dict[str, Any]] = {
    "default": {},
    "reversible": {"reversible": True},
    "Histogram": {"selection": Histogram()},
    "Sort": {"selection": Sort()},
    "Uniform": {"scope": Uniform()},
    "ERK": {"scope": ERK()},
    "NofM(2, 4)": {"pattern": NofM(2, 4)},
    "Block(4, 4)": {"pattern": Block(4, 4)},
    "Row": {"pattern": Row()},
    "Column": {"pattern": Column()},
    "Kernel": {"pattern": Kernel()},
    "Channel": {"pattern": Channel()},
    "FirstOrderDelta": {"criterion": FirstOrderDelta()},
    "SecondOrderDelta": {"criterion": SecondOrderDelta()},
    "FilterNorm": {"criterion": FilterNorm()},
    "Random": {"criterion": Random()},
    "GeometricMedian, Row": {"criterion": GeometricMedian(), "pattern": Row()},
    "L1": {"regularizer": L1(1e-3)},
    "Growing": {"regularizer": Growing(1e-3)},
}
HEAD = ["ideas", "weights with equal masks", "entries that differ", "of", "equal values"]


class Net(nn.Module):
    """Linear layers, or convolutions for kernels."""

    def __init__(self, width: int, convolutions: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = [nn.Conv2d(width, width, 3, padding=1) if convolutions else nn.Linear(width, width) for _ in range(3)]
        last = [nn.Flatten(), nn.Linear(width, 8)]
        self.layers = nn.Sequential(layer[0], nn.ReLU(), layer[1], nn.ReLU(), layer[2], nn.ReLU(), *last)
        self.example_input_array = torch.zeros((1, width, 1, 1) if convolutions else (1, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def after_updates(device: torch.device, small: bool, ideas: dict[str, Any]) -> tuple[dict[str, Tensor], ...]:
    """Return masks and weights, on the CPU, after four updates of weights that move in between."""
    net = Net(16 if small else 128, "pattern" in ideas and isinstance(ideas["pattern"], Kernel)).to(device)
    pruner = Pruner(Polynomial(0.8, 0, 4, 1), **ideas)
    pruner.attach(net, 10)
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_((0.1 * torch.randn(parameter.shape, generator=generator)).to(device))
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(device)
        pruner.after_step(step)
    masks = {name: weight.mask.cpu() for name, weight in pruner.masks.items()}
    return masks, {name: weight.parameter.detach().cpu() for name, weight in pruner.masks.items()}


def run(where: Where) -> list[Table]:
    def row(ideas: dict[str, Any]) -> Sequence[str]:
        expected, values = after_updates(torch.device("cpu"), where.small, ideas)
        found, there = after_updates(where.device, where.small, ideas)
        equal = sum(torch.equal(found[name], mask) for name, mask in expected.items())
        differ = sum(int((found[name] != mask).sum()) for name, mask in expected.items())
        same = all(torch.equal(there[name], value) for name, value in values.items())
        size = sum(mask.numel() for mask in expected.values())
        return [f"{equal} / {len(expected)}", f"{differ:,}", f"{size:,}", "yes" if same else "no"]

    rows = rows_of(IDEAS, row, len(HEAD))
    whole = sum(cells[1].split(" / ")[0] == cells[1].split(" / ")[-1] for cells in rows)
    return [Table(HEAD, rows, f"Equal to the bit: {whole} of {len(rows)}.")]
