"""Weights to prune that lie on several devices are refused by name; those of each can be pruned apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import LearnedMasks, Pruner, Targets
from lightning_prune.pattern import Element
from lightning_prune.schedule import OneShot


class Elsewhere(nn.Parameter):
    """A parameter that says it lies on another device."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.device("cuda", 1)


def apart(number: int) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    layer: Any = model[number]
    layer.weight = Elsewhere(layer.weight.detach().clone())
    return model


@pytest.mark.parametrize("number", [0, 4])
@pytest.mark.parametrize("learned", [False, True])
def test_G13_weights_on_several_devices_are_refused_before_training(number: int, learned: bool) -> None:
    model = apart(number)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    pruner = LearnedMasks(pattern=Element()) if learned else Pruner(OneShot(0.5, 0))
    one, other = ("'0.weight' on cuda:1", "'2.weight' on cpu") if number == 0 else ("'0.weight' on cpu", "'4.weight'")
    with pytest.raises(ValueError, match=rf"several devices \({one}, {other}.*callback of its own, with Targets"):
        pruner.attach(model, 10)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not any(hasattr(module, "weight_mask") for module in model)
    assert not any(module._forward_pre_hooks for module in model)


def test_those_of_one_device_are_pruned_apart() -> None:
    model = apart(4)
    pruner = Pruner(OneShot(0.5, 0), targets=Targets(exclude=("4.weight",)))
    pruner.attach(model, 1)
    pruner.update(0)
    assert pruner.strip().zeros == (24 + 30) // 2
