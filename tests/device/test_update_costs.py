"""What an update costs on a device: waits that do not grow with the number of weights, launches and bytes a weight."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.criterion import (
    LAMP,
    OBS,
    FilterNorm,
    FirstOrderDelta,
    Fisher,
    GeometricMedian,
    KMeans,
    Movement,
    Random,
    SecondOrderDelta,
    Snip,
    Taylor,
)
from lightning_prune.pattern import Block, Channel, Column, Kernel, NofM, Row
from lightning_prune.pruning import Pruner, few_units
from lightning_prune.ranking import thresholds
from lightning_prune.regularizer import L1, Growing
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import ERK, Uniform
from lightning_prune.selection import Histogram, Sort
from tests.device.counting import Counts
from tests.device.simulated import simulated

IDEAS: dict[str, dict[str, Any]] = {
    "default": {},
    "reversible": {"reversible": True},
    "Histogram": {"selection": Histogram()},
    "Sort": {"selection": Sort()},
    "Uniform": {"scope": Uniform()},
    "ERK": {"scope": ERK()},
    "Block": {"pattern": Block(4, 4)},
    "NofM": {"pattern": NofM(2, 4)},
    "Row": {"pattern": Row()},
    "Column": {"pattern": Column()},
    "Kernel": {"pattern": Kernel()},
    "Channel": {"pattern": Channel()},
    "FirstOrderDelta": {"criterion": FirstOrderDelta()},
    "SecondOrderDelta": {"criterion": SecondOrderDelta()},
    "FilterNorm": {"criterion": FilterNorm()},
    "GeometricMedian": {"criterion": GeometricMedian()},
    "Random": {"criterion": Random()},
    "Growing": {"regularizer": Growing(1e-3)},
    "Row Uniform": {"pattern": Row(), "scope": Uniform()},
    "Column ERK": {"pattern": Column(), "scope": ERK()},
    "Histogram Uniform": {"selection": Histogram(threshold_decay=0.5), "scope": Uniform()},
    "Histogram ERK": {"selection": Histogram(), "scope": ERK()},
    "Sort Uniform": {"selection": Sort(threshold_decay=0.5), "scope": Uniform()},
    "Sort ERK": {"selection": Sort(), "scope": ERK()},
    "KMeans": {"criterion": KMeans()},
    "KMeans Row": {"criterion": KMeans(), "pattern": Row()},
    "KMeans Channel": {"criterion": KMeans(), "pattern": Channel()},
    "Block Uniform": {"pattern": Block(5, 5), "scope": Uniform()},
    "Block GeometricMedian": {"pattern": Block(5, 5), "criterion": GeometricMedian()},
    "NofM Uniform": {"pattern": NofM(2, 4), "scope": Uniform()},
    "NofM Taylor": {"pattern": NofM(2, 4), "criterion": Taylor()},
    "NofM GeometricMedian": {"pattern": NofM(2, 4), "criterion": GeometricMedian()},
    "Kernel GeometricMedian": {"pattern": Kernel(), "criterion": GeometricMedian()},
    "Taylor": {"criterion": Taylor()},
    "Taylor Channel": {"criterion": Taylor(), "pattern": Channel()},
    "Fisher": {"criterion": Fisher()},
    "Movement": {"criterion": Movement()},
    "Snip": {"criterion": Snip()},
    "LAMP": {"criterion": LAMP()},
    "OBS": {"criterion": OBS()},
    "OBS of many steps": {"criterion": OBS(block=2, window=None)},
}
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in ("KMeans", "KMeans Channel") else n for n in IDEAS]
LAUNCHES = {
    "FirstOrderDelta": 32,
    "SecondOrderDelta": 36,
    "Random": 24,
    "Block Uniform": 16,
    "Block GeometricMedian": 21,
    "NofM GeometricMedian": 16,
    "Kernel GeometricMedian": 16,
    "LAMP": 24,
    "OBS": 76,
    "OBS of many steps": 76,
}
"""More kernels a small weight than others take, where units are few."""
WAITS = 13
"""As many as an update takes at most; the default pruner takes 4, and 12 where floors are in its way."""
RAGGED = {"Block GeometricMedian": 30, "NofM GeometricMedian": 30}
"""Where units hold unlike numbers of weights, are many, and a floor is in their way: more, but not for each weight."""
BYTES = {
    "NofM Taylor": 9.0,
    "NofM GeometricMedian": 8.0,
    "Kernel GeometricMedian": 8.0,
    "LAMP": 24.0,
    "OBS": 16.0,
    "OBS of many steps": 14.0,
}
"""More bytes a weight than others take: for scores beside what is protected; LAMP and OBS of one weight at a time."""
KEPT = {"Fisher": 4, "Snip": 4, "OBS": 4, "OBS of many steps": 8}
"""Bytes a weight that a first step in a window leaves in a criterion's memory."""
CLUSTERS = ("KMeans", "KMeans Row", "KMeans Channel")
"""Seconds for a layer of many filters: looked at with few of them."""


class Net(nn.Module):
    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(layers)
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(width, width), nn.ReLU()]
        self.layers = nn.Sequential(*parts, nn.Linear(width, 2))
        self.example_input_array = torch.zeros(2, width)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@dataclass
class Cost:
    update: Counts
    report: Counts
    step: Counts
    tensors: int
    size: int

    def above(self, counts: Counts) -> float:
        """Return how many bytes a weight were needed for a moment, above what was there."""
        return (counts.peak - counts.before) / self.size


def cost_of(model: nn.Module, **ideas: Any) -> Cost:
    """Return what the third update of a model costs that trains with momentum, and what is done around it."""
    with simulated() as device:
        model.to(device.device)
        pruner = Pruner(Polynomial(0.8, 0, 6, 1), **ideas)
        pruner.attach(model, 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        for step in range(2):
            give_gradients(model)
            pruner.before_step(optimizer)
            optimizer.step()
            pruner.after_step(step, [optimizer])
        give_gradients(model)
        with device.counted() as before_step:
            pruner.before_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        pruner.mask_weights(optimizer)
        with device.counted() as update:
            assert pruner.update(2, [optimizer])
        with device.counted() as report:
            pruner.report()
        weights = list(pruner.masks.values())
        assert all(weight.mask.device == device.device for weight in weights)
        assert 0.3 < pruner.report().sparsity < 0.8
        return Cost(update, report, before_step, len(weights), sum(weight.mask.numel() for weight in weights))


def give_gradients(model: nn.Module) -> None:
    for number, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)


@pytest.fixture(params=[few_units.MOST, pytest.param(0, marks=pytest.mark.slow)], ids=["few units", "many units"])
def most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Have units be ranked on the host, where these are few enough for it, and on the device."""
    monkeypatch.setattr(few_units, "MOST", request.param)
    return request.param


@pytest.mark.parametrize("name", NAMES)
def test_waits_do_not_grow_with_the_number_of_weights(name: str, most: int) -> None:
    few, many = (cost_of(Net(layers, 24), **IDEAS[name]) for layers in (4, 40 if most else 14))
    waits = WAITS if most else RAGGED.get(name, WAITS)
    assert few.update.synchronizations <= waits, few.update.where
    assert many.update.synchronizations <= waits, many.update.where
    assert many.update.synchronizations <= few.update.synchronizations + 1, many.update.where
    assert (few.report.synchronizations, many.report.synchronizations) == (1, 1)
    assert many.update.launches / many.tensors <= few.update.launches / few.tensors + 15
    if most:
        assert many.update.launches <= LAUNCHES.get(name, 15) * many.tensors


def test_the_default_pruner_waits_four_times_and_launches_few_kernels_a_weight(most: int) -> None:
    for layers in (4, 40):
        cost = cost_of(Net(layers, 24))
        assert cost.update.synchronizations == (3 if most else 4), cost.update.where
        assert cost.update.launches <= 15 * cost.tensors
    equal = Net(8, 24)
    with torch.no_grad():
        for parameter in equal.parameters():
            parameter.copy_(parameter.round())
    assert cost_of(equal).update.synchronizations == (3 if most else 4), "many are equal to the boundary"


@pytest.mark.parametrize("layers", [4, 40])
def test_layers_that_would_lose_everything_cost_no_wait_each(layers: int, most: int) -> None:
    model = Net(layers, 24)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.mul_(1e-6 if number % 4 == 0 else 1.0)
    cost = cost_of(model)
    assert cost.update.synchronizations <= 12, cost.update.where


@pytest.mark.parametrize("name", [*(name for name in IDEAS if name not in CLUSTERS), "L1"])
@pytest.mark.parametrize(("layers", "width"), [(1, 1600), pytest.param(16, 400, marks=pytest.mark.slow)])
def test_an_update_takes_less_than_six_bytes_a_weight_for_a_moment(name: str, layers: int, width: int) -> None:
    ideas = {"regularizer": L1(1e-3)} if name == "L1" else IDEAS[name]
    cost = cost_of(Net(layers, width), **ideas)
    assert cost.above(cost.update) <= BYTES.get(name, 6.0)
    assert cost.above(cost.report) <= 1.1
    if layers > 1:  # the gradient of one weight at a time, and what autograd holds for it
        assert cost.above(cost.step) <= 20 / layers + KEPT.get(name, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERS)
def test_weights_that_are_clustered_on_the_host_take_no_more(name: str) -> None:
    model = nn.Sequential(nn.Linear(60_000, 24), nn.Linear(24, 20), nn.Linear(20, 2))
    model.example_input_array = torch.zeros(1, 60_000)  # pyright: ignore
    cost = cost_of(model, **IDEAS[name])
    assert cost.above(cost.update) <= 6.0


@pytest.mark.parametrize("name", NAMES)
def test_G3_masks_are_those_of_the_cpu_to_the_bit(name: str, most: int) -> None:
    masks: list[dict[str, torch.Tensor]] = []
    for on_device in (False, True):
        with simulated() as device:
            model = Net(3, 17).to(device.device if on_device else "cpu")
            pruner = Pruner(Polynomial(0.8, 0, 4, 1), **IDEAS[name])
            pruner.attach(model, 10)
            for step in range(4):
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.add_(0.1 * (step + 1))
                give_gradients(model)
                pruner.before_step()
                pruner.after_step(step)
            masks.append({key: weight.mask.cpu() for key, weight in pruner.masks.items()})
            masks[-1] |= {f"{k} value": weight.parameter.detach().cpu() for k, weight in pruner.masks.items()}
    assert all(torch.equal(masks[1][key], mask) for key, mask in masks[0].items())


@pytest.mark.parametrize("name", NAMES)
def test_no_float64_is_made_on_a_device_that_has_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated() as device:
        monkeypatch.setattr(thresholds, "_NO_FLOAT64", (device.device.type,))
        model = Net(3, 16).to(device.device)
        pruner = Pruner(Polynomial(0.8, 0, 4, 1), **IDEAS[name])
        pruner.attach(model, 10)
        put, seen = device.memory.add, list[torch.dtype]()
        monkeypatch.setattr(device.memory, "add", lambda held: (seen.append(held.dtype), put(held)))
        for step in range(2):
            give_gradients(model)
            pruner.before_step()
            pruner.after_step(step)
        assert pruner.report().zeros
        assert torch.float32 in seen
        assert torch.float64 not in seen
