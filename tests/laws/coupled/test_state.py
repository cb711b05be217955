"""A resumed run is the uninterrupted one to the bit, and a stripped state finds its masks in the zeros."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.selection import Sort
from tests.helpers import criteria_without_norm, masks_of, mlp, same, sgd, train
from tests.laws.coupled.nets import EXAMPLE, HEADS, NAMES, Traced, net, perceptron

STATES: dict[str, dict[str, Any]] = {
    "plain": {},
    "uniform": {"scope": Uniform()},
    "multiple": {"pattern": Channel(multiple=4, example_inputs=torch.zeros(3, 7))},
    "sort": {"selection": Sort(threshold_decay=0.5)},
    "reversible": {"reversible": True},
} | {case.id: {"criterion": case.values[0]} for case in criteria_without_norm()}


def start(options: dict[str, Any]) -> tuple[nn.Module, Any, Pruner]:
    model = mlp()
    arguments: dict[str, Any] = {"pattern": EXAMPLE} | options
    pruner = Pruner(Polynomial(0.7, 2, 12, 3, initial_sparsity=0.1), **arguments)
    pruner.attach(model)
    return model, sgd(model), pruner


@pytest.mark.parametrize("cut", [1, 5, 8, 14])
@pytest.mark.parametrize("variant", STATES)
def test_G2_resumed_is_uninterrupted(variant: str, cut: int) -> None:
    model, optimizer, pruner = start(STATES[variant])
    train(model, pruner, optimizer, range(cut))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), pruner.state_dict()))
    train(model, pruner, optimizer, range(cut, 16))
    again, its_optimizer, its_pruner = start(STATES[variant])
    again.load_state_dict(saved[0])
    its_optimizer.load_state_dict(saved[1])
    its_pruner.load_state_dict(saved[2])
    train(again, its_pruner, its_optimizer, range(cut, 16))
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    assert same(pruner.state_dict(), its_pruner.state_dict())
    assert same(optimizer.state_dict()["state"], its_optimizer.state_dict()["state"])
    assert its_pruner.strip() == pruner.strip()


@NAMES
def test_G2_a_stripped_state_finds_its_masks_in_the_zeros(name: str) -> None:
    """Zeros that were not pruned, a bias, a whole norm or a column that reads a kept unit, do not make a unit dead."""
    model = net(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter[::2] = 0.0
        model.get_parameter(HEADS[name]).zero_()
    pruner = Pruner(OneShot(0.5, 3), pattern=Traced(name))
    pruner.attach(model)
    pruner.after_step(3)
    masks, thresholds = masks_of(pruner), {n: float(w.threshold) for n, w in pruner.masks.items()}
    pruner.strip()
    state = pruner.state_dict()
    assert state["stripped"]
    assert not any(isinstance(value, Tensor) for value in state.values())
    again = Pruner(OneShot(0.5, 3), pattern=Traced(name))
    again.load_state_dict(state)
    again.attach(model)
    assert same(masks_of(again), masks)
    assert {n: float(w.threshold) for n, w in again.masks.items()} == thresholds
    assert not again.after_step(9)


def test_G28_a_state_of_other_units_is_refused() -> None:
    _, _, pruner = start({})
    pruner.after_step(2)
    state = pruner.state_dict()
    other = Pruner(OneShot(0.5, 0), pattern=EXAMPLE)
    other.load_state_dict(state)
    wider = perceptron()
    with pytest.raises(ValueError, match="other weights"):
        other.attach(wider)
    assert all("mask" not in key for module in wider.modules() for key in vars(module))
    assert not other.attached
