"""Stacks of experts that are clustered on the host: brought there all at once, and clustered as they were before."""

import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.criterion import KMeans
from lightning_prune.pattern import Row
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets
from tests.device.simulated import simulated


class Stacks(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(layers)
        for number in range(layers):
            weight = torch.randn(3 + number % 2, 6, 4, generator=generator)
            self.register_parameter(f"weight{number}", nn.Parameter(weight))


def update(layers: int, on_device: bool) -> tuple[int, dict[str, torch.Tensor]]:
    with simulated() as device:
        model = Stacks(layers).to(device.device if on_device else "cpu")
        layouts = {f"weight{number}": "expert out in" for number in range(layers)}
        pruner = Pruner(OneShot(0.5, 0), KMeans(), Row(), targets=Targets(layout=layouts))
        pruner.attach(model, 10)
        with device.counted() as counts:
            assert pruner.update(0)
        return counts.synchronizations, {name: weight.mask.cpu() for name, weight in pruner.masks.items()}


def test_waits_do_not_grow_with_the_number_of_stacks() -> None:
    (few, _), (many, masks) = update(2, True), update(6, True)
    assert few == many
    _, expected = update(6, False)
    assert all(torch.equal(masks[name], mask) for name, mask in expected.items())
    assert all(0 < int(mask.sum()) < mask.numel() for mask in masks.values())
