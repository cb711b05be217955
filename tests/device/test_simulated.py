"""The simulated device refuses what CUDA refuses, counts what is costly there, and leaves no trace behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prune import Pruner
from lightning_prune.schedule import OneShot
from tests.device.runs import batch, net, trained
from tests.device.simulated import DEVICE, simulated

foreach: Any = torch


@dataclass(frozen=True)
class MaskOnTheCpu:
    """A criterion with a fault: it makes a tensor where the weight is not."""

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        return weight.abs() * torch.ones(weight.shape)


@dataclass(frozen=True)
class DrawnOnTheCpu:
    """A criterion with a fault: a generator of the CPU draws on the device."""

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        return torch.rand(weight.shape, generator=torch.Generator().manual_seed(0), device=weight.device)


@dataclass(frozen=True)
class LooksAtEach:
    """A criterion with a fault: the host waits for the device at each weight."""

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        return weight.abs() / weight.abs().max().item()


def update(device: torch.device, criterion: object) -> Pruner:
    model = net().to(device)
    pruner = Pruner(OneShot(0.5, 0), criterion=criterion)  # pyright: ignore
    pruner.attach(model)
    pruner.update(0)
    return pruner


@pytest.mark.parametrize(
    ("criterion", "words"), [(MaskOnTheCpu(), "at least two devices"), (DrawnOnTheCpu(), "device type for generator")]
)
def test_a_fault_that_the_cpu_hides_is_refused(criterion: object, words: str) -> None:
    update(torch.device("cpu"), criterion)
    with simulated(), pytest.raises(RuntimeError, match=words):
        update(DEVICE, criterion)


def test_a_wait_at_each_weight_is_seen_with_its_place() -> None:
    counted: list[int] = []
    with simulated() as device:
        for count in (3, 9):
            weights = [torch.ones(4, device=DEVICE) for _ in range(count)]
            with device.counted() as counts:
                for weight in weights:
                    LooksAtEach()(weight, None)
            counted.append(counts.synchronizations)
            ((place, times),) = (+counts.where).items()
            assert place.startswith("test_simulated.py:")
            assert (times, counts.copies) == (count, count)
    assert counted == [3, 9]


def test_what_mixes_devices_is_refused_by_cudas_rules() -> None:
    with simulated():
        there, here, number = torch.ones(3, device=DEVICE), torch.ones(3), torch.tensor(2.0)
        assert (there * number).cpu().tolist() == [2.0, 2.0, 2.0]
        assert there[torch.tensor([0, 2])].cpu().tolist() == [1.0, 1.0]
        for wrong in (
            lambda: there * here,
            lambda: here.add_(there),
            lambda: number.add_(there.sum()),
            lambda: here[torch.tensor([True, False, True]).to(DEVICE)],
            lambda: torch.cat([there, here]),
            lambda: torch.cat([there, number.view(1)]),
            lambda: there.dot(here),
            lambda: torch.equal(there, here),
            lambda: foreach._foreach_add_([there], [here]),
        ):
            with pytest.raises(RuntimeError, match="two devices"):
                wrong()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, generator=torch.Generator(DEVICE))


def test_launches_copies_and_waits_are_counted() -> None:
    with simulated() as device:
        there = torch.arange(8.0).to(DEVICE)
        mask = there > 3
        costs = {}
        for name, act in {
            "view": lambda: there.view(2, 4).t(),
            "kernel": lambda: there.mul_(2),
            "number": lambda: float(there.sum()),
            "places": lambda: there[mask],
            "filled": lambda: there.masked_fill_(mask, 0.0),
            "brought": lambda: torch.ones(3).to(DEVICE),
            "many": lambda: foreach._foreach_mul_([there, there], 2.0),
        }.items():
            with device.counted() as counts:
                act()
            costs[name] = (counts.launches, counts.synchronizations, counts.copies)
    assert costs == {
        "view": (0, 0, 0),
        "kernel": (1, 0, 0),
        "number": (1, 1, 1),
        "places": (4, 1, 0),
        "filled": (1, 0, 0),
        "brought": (0, 1, 1),
        "many": (1, 0, 0),
    }


def test_bytes_on_the_device_are_counted_once_for_each_storage() -> None:
    with simulated() as device:
        kept = torch.zeros(1000, device=DEVICE)
        with device.counted() as counts:
            half = kept[500:]
            passing = torch.zeros(100, device=DEVICE)
            del passing
            more = half + 1
        assert (counts.before, counts.peak, device.memory.now) == (4000, 6000, 6000)
        del kept
        assert device.memory.now == 6000
        del half, more
        assert device.memory.now == 0


def test_the_device_draws_numbers_of_its_own_and_leaves_the_cpus() -> None:
    before = torch.get_rng_state()
    with simulated():
        torch.rand(3, device=DEVICE)
        of_device = torch.rand(3, generator=torch.Generator(DEVICE).manual_seed(1), device=DEVICE).cpu()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(of_device, torch.rand(3, generator=torch.Generator().manual_seed(1)))


def test_torch_is_as_it_was_afterwards() -> None:
    generator, swaps = torch.Generator, torch.__future__.get_swap_module_params_on_conversion()
    with simulated():
        model = net()
        parameters = list(model.parameters())
        assert all(one is other for one, other in zip(parameters, model.to(DEVICE).parameters(), strict=True))
        trained(DEVICE)
    assert torch.Generator is generator
    assert torch.__future__.get_swap_module_params_on_conversion() == swaps
    assert not torch.accelerator.is_available()
    batch(0, torch.device("cpu")).requires_grad_().sum().backward()
