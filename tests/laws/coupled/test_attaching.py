"""Attaching traces the model and leaves it and all generators as they were; so does a final sparsity of 0."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot, Polynomial
from tests.helpers import ideas, same
from tests.laws.coupled.nets import EXAMPLE, NAMES, Traced, net


class Noisy(nn.Module):
    """Draws from every generator in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.net = nn.Sequential(nn.Linear(7, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.ReLU(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x) + 0.0 * (torch.rand(()) + np.random.rand() + random.random())


def snapshot(model: nn.Module) -> Any:
    numbers: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "numpy": (numbers["state"]["key"].tolist(), numbers["state"]["pos"]),
        "python": random.getstate(),
        "state": copy.deepcopy(dict(model.state_dict())),
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "ids": [id(p) for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(k for k in vars(m) if not k.endswith(("_mask", "_threshold"))) for m in model.modules()],
        "calls": model.calls,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("training", [True, False])
def test_G12_attaching_leaves_model_and_generators_as_they_were(training: bool) -> None:
    torch.manual_seed(3)
    model = Noisy().train(training)
    model.net[1].eval()
    model(torch.randn(4, 7)).sum().backward()
    for parameter in model.net[4].parameters():
        parameter.requires_grad_(False)
    model.net[4].weight.requires_grad_(True)
    before = snapshot(model)
    pruner = Pruner(OneShot(0.5, 5), pattern=EXAMPLE)
    pruner.attach(model)
    after = snapshot(model)
    others = {"numpy", "python"}  # see the next test
    assert [key for key in before if not same(before[key], after[key]) and key not in others] == []
    pruner.strip()
    assert same(dict(model.state_dict()), before["state"])


def test_G12_attaching_leaves_the_generators_of_numpy_and_python_as_they_were() -> None:
    model = Noisy()
    before = snapshot(model)
    Pruner(OneShot(0.5, 5), pattern=EXAMPLE).attach(model)
    after = snapshot(model)
    assert all(same(before[key], after[key]) for key in ("numpy", "python"))


@NAMES
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("multiple", [1, 4])
def test_G12_a_final_sparsity_of_0_keeps_all(name: str, scope: Any, multiple: int) -> None:
    model = net(name)
    before = copy.deepcopy(dict(model.state_dict()))
    pruner = Pruner(Polynomial(0.0, 0, 4, 1), pattern=Traced(name, multiple), scope=scope)
    pruner.attach(model)
    for step in range(5):
        pruner.after_step(step)
    assert all(bool(weight.mask.all()) for weight in pruner.masks.values())
    assert same(dict(model.state_dict()), before)
