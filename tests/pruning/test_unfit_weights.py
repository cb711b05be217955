"""Weights that cannot be masked: refused by name before anything is attached, left whole by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import LearnedMasks, Pruner
from lightning_prune.pattern import Element
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets

MAKE: list[Callable[..., Any]] = [
    lambda **kw: Pruner(OneShot(0.5, 1), **kw),
    lambda **kw: LearnedMasks(pattern=Element(), **kw),
]


def sparse_and_dense() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(torch.eye(4).to_sparse())
    model[2].weight = nn.Parameter(torch.eye(4).to(torch.float8_e4m3fn), requires_grad=False)
    return model


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("name", ["1.weight", "2.weight"])
def test_G31_by_name_it_is_refused_and_the_model_is_as_it_was(make: Callable[..., Any], name: str) -> None:
    model = sparse_and_dense()
    before = {path: set(module.__dict__) for path, module in model.named_modules()}
    pruner = make(targets=Targets(include=("0.weight", name)))
    with pytest.raises(ValueError, match=f"include pattern '{name}' names '{name}', which cannot be masked"):
        pruner.attach(model, 10)
    assert not pruner.attached
    assert {path: set(module.__dict__) for path, module in model.named_modules()} == before


def test_G31_by_default_the_others_are_pruned() -> None:
    model = sparse_and_dense()
    pruner = Pruner(OneShot(0.5, 1))
    pruner.attach(model)
    pruner.after_step(1)
    report = pruner.strip()
    assert [weight.name for weight in report.weights] == ["0.weight"]
    assert report.zeros == 8
    assert "left whole, torch.sparse_coo, not a dense tensor: 1.weight" in report.table()
    assert "left whole, torch.float8_e4m3fn, too short a float to be ranked: 2.weight" in report.table()


@pytest.mark.parametrize("make", MAKE)
def test_G13_weights_without_values_are_refused(make: Callable[..., Any]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    before = {path: set(module.__dict__) for path, module in model.named_modules()}
    with pytest.raises(ValueError, match=r"'1\.weight' is on the meta device and has no values"):
        make().attach(model, 10)
    assert {path: set(module.__dict__) for path, module in model.named_modules()} == before
