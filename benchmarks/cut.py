"""What a cut leaves of a trained ResNet-20 before any training after it: by our scores, and by Torch-Pruning's.

Channels go at one stroke until the net has so many times fewer MACs; BatchNorm's statistics are taken anew from 2,560
training images, and the accuracy is that of the 5,000 validation images.

python benchmarks/cut.py model.pt [model.pt ...]     # of dense runs of the recipe cifar10_resnet20
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from copy import deepcopy

import torch
from hydra.utils import instantiate
from one_shot import macs, pruned, recipe
from shrink import taken_out
from torch import Tensor, nn

from lightning_prune.cli.build import load_weights
from lightning_prune.pattern import Channel
from lightning_prune.pruning.unit_budget import nearest
from lightning_prune.scope import GlobalRanking
from lightning_prune.tasks.data.cifar10 import CIFAR10
from lightning_prune.tasks.resnet import ResNet

TIMES = (1.25, 1.5, 1.75)
STREAMS = ("linear", "conv2", "shortcut", r"^conv\.")
Cut = Callable[[ResNet, float], nn.Module]


def ours(exclude: tuple[str, ...], readers: bool) -> Cut:
    def cut(net: ResNet, share: float) -> nn.Module:
        pattern = Channel(readers=readers, example_inputs=net.example_input)
        return taken_out(deepcopy(net), share, pattern, exclude, GlobalRanking()).model

    return cut


CUTS: dict[str, Cut] = {
    "Torch-Pruning, the same share of each group": lambda net, share: pruned(net, share, False),
    "Channel()": ours(("linear",), False),
    "Channel(readers=True)": ours(("linear",), True),
    "Channel(readers=True), streams whole": ours(STREAMS, True),
}


def cut_to(times: float, net: ResNet, cut: Cut) -> tuple[nn.Module, float]:
    """Return the cut net that is nearest to so many times fewer MACs, and how many times it is."""
    dense = macs(net)

    def share(place: float) -> float:
        return 0.02 + 0.88 * place

    place = nearest(lambda place: dense / macs(cut(net, share(place))), times, 2**-7)
    smaller = cut(net, share(place))
    return smaller, dense / macs(smaller)


@torch.no_grad()
def accuracy(net: nn.Module, training: list[Tensor], validation: list[tuple[Tensor, Tensor]]) -> float:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    net.train()
    for images in training:
        net(images)
    net.eval()
    right = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in validation)
    return 100 * right / sum(len(labels) for _, labels in validation)


def load(path: str) -> ResNet:
    config = recipe([f"weights={path}"])
    task = instantiate(config.task)
    load_weights(config, task)
    return task.net.eval()


def main() -> None:
    data = CIFAR10(os.environ.get("LIGHTNING_PRUNE_DATA", "data"), augment=False)
    data.setup("fit")
    training = [data.train_set.__getitems__(list(range(i, i + 128)))[0] for i in range(0, 2560, 128)]
    validation: list[tuple[Tensor, Tensor]] = list(data.val_dataloader())
    nets = [load(path) for path in sys.argv[1:]]
    dense = [f"{accuracy(deepcopy(net), training, validation):.1f}" for net in nets]
    print(f"| the dense nets: {', '.join(dense)} | times fewer MACs | validation accuracy |\n| --- | --- | --- |")
    for times in TIMES:
        for name, cut in CUTS.items():
            found = [cut_to(times, net, cut) for net in nets]
            ratios = ", ".join(f"{ratio:.2f}" for _, ratio in found)
            left = ", ".join(f"{accuracy(net, training, validation):.1f}" for net, _ in found)
            print(f"| {name} | {ratios} | {left} |", flush=True)


if __name__ == "__main__":
    main()
