"""ResNet-20 and VGG-16 for 32x32 with half of their channels taken out, beside the dense nets.

python benchmarks/shrink.py [repeats] [batch]
"""

from __future__ import annotations

import sys

import torch
from timing import machine, table
from torch import nn

from lightning_prune import Pruner, cost
from lightning_prune.pattern.channel import Channel
from lightning_prune.schedule.one_shot import OneShot
from lightning_prune.scope.uniform import Uniform
from lightning_prune.shrink import shrink
from lightning_prune.tasks.resnet import resnet20
from lightning_prune.tasks.vgg import vgg16

NETS = {"ResNet-20": resnet20, "VGG-16": vgg16}


def halved(model: nn.Module) -> nn.Module:
    """Return the model with half of the channels of every group: rows and columns, so a quarter of the weights."""
    pruner = Pruner(OneShot(0.75, 0), pattern=Channel(example_inputs=torch.randn(1, 3, 32, 32)), scope=Uniform())
    pruner.attach(model)
    pruner.after_step(0)
    pruner.strip()
    shrunk = shrink(model, torch.randn(1, 3, 32, 32))
    assert all(group.after == group.before // 2 for group in shrunk.report.groups)
    return shrunk.model


def row(name: str, repeats: int, batch: int) -> list[str]:
    torch.manual_seed(0)
    dense = NETS[name]().eval()
    report = cost.compare(dense, halved(dense).eval(), torch.randn(batch, 3, 32, 32), repeats)
    fewer, faster = report.predicted_speedup, report.measured_speedup
    return [
        name,
        str(batch),
        f"{report.dense_ms:.1f}",
        f"{report.smaller_ms:.1f}",
        f"{fewer:.2f}",
        f"{faster:.2f}",
        f"{faster / fewer:.2f}",
    ]


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    batches = [int(sys.argv[2])] if len(sys.argv) > 2 else [1, 64]
    rows = [row(name, repeats, batch) for name in NETS for batch in batches]
    print(machine())
    head = [
        "model",
        "batch",
        "dense, ms",
        "half the channels, ms",
        "times fewer MACs",
        "times faster",
        "of the MACs' ratio",
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
