"""A pruner that is used again: nothing of the model before is left in it, and what it leaves has its zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.regularizer import L2
from lightning_prune.schedule import Polynomial
from tests.helpers import mlp, pruned_once, same, sgd, train

SHARES = Polynomial(0.8, begin_step=0.1, end_step=0.5, pruning_frequency=0.2)


def run(model: nn.Module, pruner: Pruner, steps: int, total: int | None = None) -> None:
    pruner.attach(model, total_steps=total)
    train(model, pruner, sgd(model), range(steps))


@pytest.mark.parametrize("resumable", [False, True])
def test_G2_a_loaded_state_is_for_one_attach(resumable: bool) -> None:
    first, model = Pruner(SHARES), mlp()
    run(model, first, 12, total=20)
    pruner = Pruner(SHARES)
    pruner.load_state_dict(first.state_dict())
    assert pruner.saved_length == 20
    assert pruner.saved_window is not None
    other = mlp()
    other.load_state_dict(model.state_dict())
    pruner.attach(other, total_steps=30)
    assert pruner.report().zeros == round(0.8 * 144)
    assert (pruner.saved_length, pruner.saved_window) == (None, None)
    pruner.strip(resumable)
    dense = mlp(seed=5)
    pruner.attach(dense, total_steps=40)
    assert pruner.report().zeros == 0
    assert pruner.last_update is None
    assert pruner.length == 40


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_G11_strip_masks_what_was_written_after_the_last_step(sparsity: float) -> None:
    model = mlp()
    pruner = pruned_once(model, sparsity)
    masks = {name: weight.mask for name, weight in pruner.masks.items()}
    with torch.no_grad():
        for name in masks:
            model.get_parameter(name).add_(3.0)
    report = pruner.strip()
    assert report.zeros == round(sparsity * 144)
    for name, mask in masks.items():
        assert same(model.get_parameter(name).detach() != 0, mask)


@pytest.mark.parametrize(("own", "saved"), [(16, 100), (100, 16), (None, 40)])
def test_G2_a_state_brings_its_runs_length_to_an_attached_pruner(own: int | None, saved: int) -> None:
    schedule: Any = SHARES if own is not None else Polynomial(0.8, 2, 10, 4)
    other, pruner = Pruner(schedule), Pruner(schedule)
    model, mine = mlp(), mlp()
    run(model, other, saved, total=saved)
    pruner.attach(mine, total_steps=own)
    mine.load_state_dict(model.state_dict())
    pruner.load_state_dict(other.state_dict())
    assert pruner.length == saved
    assert pruner.resolved_schedule == other.resolved_schedule
    assert not pruner.after_step(saved), "its updates are done"


def test_G2_a_state_without_a_length_leaves_the_attached_pruner_its_own() -> None:
    schedule = Polynomial(0.8, 2, 10, 4)
    other, pruner = Pruner(schedule), Pruner(schedule)
    model, mine = mlp(), mlp()
    run(model, other, 12)
    pruner.attach(mine, total_steps=16)
    mine.load_state_dict(model.state_dict())
    pruner.load_state_dict(other.state_dict())
    assert other.length is None
    assert pruner.length == 16


def test_a_second_attach_begins_without_the_firsts_numbers() -> None:
    pruner = Pruner(Polynomial(0.8, 2, 10, 4), regularizer=L2(0.1))
    run(mlp(), pruner, 12)
    assert pruner.penalty > 0
    pruner.strip()
    assert pruner.state_dict()
    model: Any = mlp()
    pruner.attach(model)
    assert pruner.penalty == 0
    model[0] = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"0\.weight"):
        pruner.strip()
    assert not pruner.attached
    assert pruner.state_dict() == {}
    assert pruner.last_update is None
    with pytest.raises(RuntimeError, match="not attached"):
        pruner.report()
