"""The median latency is of forwards after the warm-up alone, whatever the first ones take."""

from __future__ import annotations

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
    import sys

    clock = Clock()
    monkeypatch.setattr(sys.modules["lightning_prune.cost.latency"], "time", clock)
    models = [Cold(clock, 3), Cold(clock, 0)]
    found = latency(models, torch.zeros(1, 1), repeats)
    assert found == pytest.approx([2.0, 2.0])
