"""The median latency is of forwards after the warm-up alone, whatever the first ones take."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.cost import latency


class Clock:
    """A clock that moves only while a model computes."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Cold(nn.Module):
    """Its first forwards take long."""

    def __init__(self, clock: Clock, cold: int) -> None:
        super().__init__()
        self.clock, self.cold = clock, cold
        self.layer = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += 9.0 if self.cold > 0 else 0.002
        self.cold -= 1
        return self.layer(x)


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_a_warm_up_is_not_measured(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(sys.modules["lightning_prune.cost.latency"], "time", clock)
    models = [Cold(clock, 3), Cold(clock, 0)]
    found = latency(models, torch.zeros(1, 1), repeats)
    assert found == pytest.approx([2.0, 2.0])


class Busy(nn.Module):
    """Two thirds of its forwards are slow, in long stretches, as beside another program."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.calls = clock, 0

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += 0.2 if self.calls % 30 < 20 else 0.002
        self.calls += 1
        return x


def test_a_machine_that_is_busy_most_of_the_time_is_seen_through(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(sys.modules["lightning_prune.cost.latency"], "time", clock)
    assert latency([Busy(clock)], torch.zeros(1, 1), 30) == pytest.approx([2.0])


class Waited:
    """Stands for a device's module, and for torch.accelerator."""

    def __init__(self, kind: str) -> None:
        self.kind, self.calls = kind, list[str]()

    def is_available(self) -> bool:
        return True

    def current_accelerator(self) -> torch.device:
        return torch.device(self.kind)

    def synchronize(self, device: Any = None) -> None:
        self.calls.append(str(device))


@pytest.mark.parametrize(
    ("kind", "accelerator", "calls"),
    [("xpu", "xpu", ["xpu:0"]), ("mps", None, ["None"]), ("cuda", None, ["cuda:0"]), ("xpu", "cuda", ["None"])],
)
def test_what_runs_on_a_device_is_waited_for(
    kind: str, accelerator: str | None, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = Waited(accelerator or kind)
    own = waited if accelerator in (None, kind) else Waited(kind)
    monkeypatch.setattr(torch, "accelerator", None if accelerator is None else waited, raising=False)
    monkeypatch.setattr(torch, kind, own)
    monkeypatch.setattr(sys.modules["lightning_prune.cost.latency"], "device_of", lambda _: torch.device(kind, 0))
    model = nn.Linear(2, 2)
    latency([model], torch.zeros(1, 2), 1)
    assert own.calls == calls * 2 * 4  # before and after each forward, three of them to warm up
