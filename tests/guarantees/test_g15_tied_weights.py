"""G15: tied weights stay tied and count once, where their units are rows and columns at once.

For single weights: tests/pruning/test_pruner_model.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Units, fit
from tests.guarantees.whole_units import channels


class Tied(nn.Module):
    """Two layers with one weight between them: its units are rows and columns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.one, self.two, self.out = (nn.Linear(12, 9), nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 4))
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).relu()
        x = x + self.one(x).relu()
        return self.out(x + self.two(x).relu())


def test_G15_tied_weights_stay_tied_and_count_once() -> None:
    torch.manual_seed(0)
    model, callback = Units(net=Tied()), channels(schedule=OneShot(0.5, 5))
    fit(model, callback, max_steps=20)
    assert model.net.two.weight is model.net.one.weight
    assert callback.report is not None
    assert [w.name for w in callback.report.weights] == ["net.into.weight", "net.one.weight", "net.out.weight"]
    assert callback.report.size == 9 * (12 + 9 + 4)
    gone = (model.net.into.weight == 0).all(1)
    assert 0 < int(gone.sum()) < 9
    assert torch.equal(gone, (model.net.one.weight == 0).all(1))
    assert torch.equal(gone, (model.net.one.weight == 0).all(0))
    assert torch.equal(gone, (model.net.out.weight == 0).all(0))
    assert torch.equal(gone, model.net.two.bias == 0)
