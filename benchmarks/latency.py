"""Five nets pruned to shares of their milliseconds, by a table of layers and by a measured speed-up.

For each: what was asked for, what the table says that it comes to, and what the smaller model takes beside the dense
one, in turn, in this process.

A speed-up of 0 leaves the second out.

python benchmarks/latency.py [share] [speedup] [net ...]
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable

import torch
from timing import machine, table
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.budget import Latency
from lightning_prune.cost import LatencyTable, measure_latency
from lightning_prune.pattern import Channel
from lightning_prune.pruning.target import UnreachableError, steady_latency
from lightning_prune.report import Spent
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import shrink
from lightning_prune.tasks.resnet import resnet20

_BLOCKS = 24


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def conv() -> nn.Module:
    def layer(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*layer(3, 64), *layer(64, 128), *layer(128, 256), nn.Flatten(), nn.Linear(256 * 16, 10))


class Recurrent(nn.Module):
    """A recurrent net of characters."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(64, 512, 2, batch_first=True), nn.Linear(512, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP 784-1024-1024-10": (mlp, (16, 784)),
    "conv net 64-128-256": (conv, (4, 3, 32, 32)),
    "ResNet-20": (resnet20, (4, 3, 32, 32)),
    "LSTM 512, 2 layers": (Recurrent, (4, 32, 64)),
    "transformer 256, 2 layers": (transformer, (1, 64, 256)),
}


def pruned(dense: nn.Module, x: Tensor, budget: Latency, share: float) -> tuple[Spent, float, float]:
    """Return what a copy comes to, and the milliseconds of the dense net and of the smaller one."""
    model = copy.deepcopy(dense)
    pruner = Pruner(OneShot(share, 0), pattern=Channel(example_inputs=x), budget=budget)
    pruner.attach(model)
    pruner.after_step(0)
    spent = pruner.strip().spent
    assert spent is not None
    before, after = steady_latency((dense, shrink(model, x).model), x, _BLOCKS)
    return spent, before, after


def rows_of(name: str, share: float, speedup: float) -> tuple[list[str], list[str] | None]:
    """Return a row for the share, and one for the speed-up where one is asked for."""
    make, shape = NETS[name]
    torch.manual_seed(0)
    dense, x = make().eval(), torch.randn(shape)
    start = time.perf_counter()
    times: LatencyTable = measure_latency(dense, x)
    took = time.perf_counter() - start
    spent, before, after = pruned(dense, x, Latency(times), share)
    by_table = [
        f"{name}, batch {times.batch}",
        f"{100 * share:.0f} %",
        f"{100 * spent.gone:.1f} %",
        f"{100 * (1 - after / before):.1f} %",
        f"{spent.total:.2f} → {spent.left:.2f}",
        f"{before:.2f} → {after:.2f}",
        f"{took:.0f} s",
    ]
    if speedup <= 1:
        return by_table, None
    head = [f"{name}, batch {times.batch}", f"{speedup:g}"]
    try:
        spent, before, after = pruned(dense, x, Latency(times, speedup=speedup), share)
    except UnreachableError as error:
        return by_table, [*head, str(error).partition(",")[0], "", ""]
    return by_table, [*head, f"{100 * spent.gone:.1f} %", f"{before / after:.2f}", f"{before:.2f} → {after:.2f}"]


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    speedup = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    print(machine())
    head = ["net", "asked", "by the table", "measured", "table, ms", "measured, ms", "measuring the table"]
    faster = ["net", "speed-up asked", "of the table's ms gone", "measured", "ms"]
    for name in sys.argv[3:] or NETS:
        by_table, by_speed = rows_of(name, share, speedup)
        print(table(head, [by_table]), flush=True)
        if by_speed is not None:
            print(table(faster, [by_speed]), flush=True)


if __name__ == "__main__":
    main()
