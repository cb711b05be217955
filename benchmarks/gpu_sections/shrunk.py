"""Nets with units taken out, timed beside the dense ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from shrink import taken_out
from torch import nn

from gpu_sections.tools import Table, Where, rows_of
from lightning_prune import cost
from lightning_prune.pattern import Channel
from lightning_prune.tasks.char_lstm import CharLSTM
from lightning_prune.tasks.resnet import resnet20, resnet56
from lightning_prune.tasks.vgg import vgg16

HEAD = [
    "net, three quarters of the weights out",
    "batch",
    "dense, ms",
    "smaller, ms",
    "times fewer MACs",
    "times faster",
]


def lstm(hidden: int) -> CharLSTM:
    return CharLSTM(65, 64, hidden, 2)


def run(where: Where) -> list[Table]:
    nets: dict[str, tuple[Callable[[], nn.Module], Sequence[int], bool]] = {
        "ResNet-20": (resnet20, (1, 512), True),
        "ResNet-56": (resnet56, (512,), True),
        "VGG-16": (vgg16, (1, 512), True),
        "LSTM, 2 x 1024, 128 characters": (lambda: lstm(1024), (64,), False),
    }
    if where.small:
        nets = {"ResNet-20": (resnet20, (1,), True), "LSTM, 2 x 32": (lambda: lstm(32), (2,), False)}
    cases = {
        f"{name}; {batch}": (net, batch, images) for name, (net, batches, images) in nets.items() for batch in batches
    }
    rows = rows_of(cases, lambda case: _row(where, *case), len(HEAD) - 1)
    return [Table(HEAD, [[*row[0].split("; "), *row[1:]] for row in rows], "Medians of forwards in inference mode.")]


def _row(where: Where, net: Callable[[], nn.Module], batch: int, images: bool) -> Sequence[str]:
    torch.manual_seed(0)
    dense = net().to(where.device).eval()
    example = where.randn(2, 3, 32, 32) if images else torch.zeros(2, 8, dtype=torch.long, device=where.device)
    smaller = taken_out(dense, 0.75, Channel(8, example_inputs=example)).model.eval()
    length = 8 if where.small else 128
    inputs = where.randn(batch, 3, 32, 32) if images else example[:1, :1].expand(batch, length).contiguous()
    report = cost.compare(dense, smaller, inputs, 3 if where.small else 30)
    times = [f"{report.dense_ms:.2f}", f"{report.smaller_ms:.2f}"]
    return [*times, f"{report.predicted_speedup:.2f}", f"{report.measured_speedup:.2f}"]
