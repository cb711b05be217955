"""ResNet-20 and VGG-16 for 32x32 with half of their channels taken out, beside the dense nets.

Then ResNet-20 at other widths, with about half of the MACs.

python benchmarks/shrink.py [repeats] [batch]
"""

from __future__ import annotations

import sys

import torch
from timing import machine, table
from torch import nn

from lightning_prune import Pruner, cost
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from lightning_prune.scope import Scope, Uniform
from lightning_prune.shrink import Shrunk, shrink
from lightning_prune.targets import Targets
from lightning_prune.tasks.resnet import resnet20
from lightning_prune.tasks.vgg import vgg16

IMAGE = torch.randn(1, 3, 32, 32)
NETS = {"ResNet-20": resnet20, "VGG-16": vgg16}
# The share of the weights that goes, what the widths are multiples of, what stays whole.
THINNER: dict[str, tuple[float, int, tuple[str, ...]]] = {
    "all layers": (0.5, 1, ()),
    "all layers, multiples of 8": (0.55, 8, ()),
    "last stage whole": (0.71, 1, (r"stages\.2",)),
    "last stage whole, multiples of 8": (0.75, 8, (r"stages\.2",)),
}


def taken_out(
    model: nn.Module, share: float, pattern: Channel, exclude: tuple[str, ...] = (), scope: Scope | None = None
) -> Shrunk:
    """Return what is left of a model when this share of its weights has gone in whole channels, at one stroke.

    Without a scope each group loses the same share. The model keeps its shapes and has zeros where they went.
    """
    pruner = Pruner(OneShot(share, 0), pattern=pattern, scope=scope or Uniform(), targets=Targets(exclude=exclude))
    pruner.attach(model)
    pruner.after_step(0)
    pruner.strip()
    return shrink(model, pattern.example_inputs)


def widths(model: nn.Module) -> str:
    """Return the channels that the stages of a ResNet-20 end with, as 16/32/64."""
    return "/".join(str(len(model.get_parameter(f"stages.{stage}.2.conv2.weight"))) for stage in range(3))


def against(dense: nn.Module, other: nn.Module, repeats: int, batch: int) -> list[str]:
    report = cost.compare(dense, other, torch.randn(batch, 3, 32, 32), repeats)
    fewer, faster = report.predicted_speedup, report.measured_speedup
    return [
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
    costs = ["batch", "dense, ms", "smaller, ms", "times fewer MACs", "times faster", "of the MACs' ratio"]
    print(machine())
    rows: list[list[str]] = []
    for name, net in NETS.items():
        torch.manual_seed(0)
        dense = net().eval()
        half = taken_out(dense, 0.75, Channel(example_inputs=IMAGE))  # rows and columns: a quarter of the weights stays
        assert all(group.after == group.before // 2 for group in half.report.groups)
        rows += [[name, *against(dense, half.model.eval(), repeats, batch)] for batch in batches]
    print(table(["half of the channels", *costs], rows))
    rows = []
    for name, (share, multiple, exclude) in THINNER.items():
        torch.manual_seed(0)
        dense = resnet20().eval()
        net = taken_out(dense, share, Channel(multiple, example_inputs=IMAGE), exclude).model.eval()
        rows += [[name, widths(net), *against(dense, net, repeats, batch)] for batch in batches]
    print(table(["ResNet-20", "channels of the stages", *costs], rows))


if __name__ == "__main__":
    main()
