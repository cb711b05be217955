"""G9: stripping changes no bit of any output, in training and in evaluation; shrinking changes little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import nn

from lightning_prune.shrink import shrink
from tests.guarantees.helpers import Net, Units, bits, differences, fit, ramp
from tests.guarantees.spies import Masked, outputs
from tests.guarantees.whole_units import channels, dead


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    return nn.Sequential(nn.Unflatten(0, (1, -1)), layer, nn.Flatten(0, 1), nn.Linear(12, 4))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 5, 3), nn.GroupNorm(1, 5), nn.ReLU(), nn.Flatten(), nn.Linear(50, 4)
    )


@pytest.mark.parametrize("make", [mixed, encoder, convolutions], ids=lambda make: make.__name__)
def test_G9_stripping_changes_no_bit_of_any_output(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, callback = Net(net=make()), ramp()
    masked = Masked(callback)
    fit(model, callback, masked, max_steps=20)
    assert not callback.pruner.attached
    assert len(masked.outputs) == 6
    assert differences(masked.outputs, outputs(model.net)) == []


def test_G9_strip_changes_no_bit_and_shrinking_little() -> None:
    model, callback = Units(), channels()
    masked = Masked(callback)
    fit(model, callback, masked, max_steps=20)
    assert differences(masked.outputs, outputs(model.net)) == []
    before = bits(model)
    small = shrink(model.net, torch.randn(4, 12), tolerance=1e-4)
    assert differences(before, bits(model)) == []
    assert small.report.relative <= 1e-5
    x = torch.randn(64, 12)
    torch.testing.assert_close(small.model.eval()(x), model.net.eval()(x), rtol=1e-4, atol=1e-5)
    gone, net = dead(model), cast(Any, small.model)
    assert net[1].weight.shape[0] == 8 - gone["net.1.weight"]
    assert net[6].weight.shape[0] == 10 - gone["net.6.weight"]
