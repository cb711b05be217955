"""Weights made dense between two fits of one Trainer are pruned again; those that have their zeros keep them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import PruningCallback
from lightning_prune.callbacks.left_zeros import zeros_are_left
from lightning_prune.criterion import Random
from tests.guarantees.helpers import SIZE, Batches, Net, ramp, sparsity, trainer


def all_at_first(model: Net, first: dict[str, Any]) -> None:
    model.load_state_dict(first)


def one_weight(model: Net, first: dict[str, Any]) -> None:
    with torch.no_grad():
        model.get_parameter("net.3.weight").copy_(first["net.3.weight"])


def one_value(model: Net, first: dict[str, Any]) -> None:
    weight = model.get_parameter("net.0.weight")
    row, column = (weight == 0).nonzero()[0].tolist()
    with torch.no_grad():
        weight[row, column] = 1.0


def nothing(model: Net, first: dict[str, Any]) -> None:
    pass


def fitted(between: Callable[[Net, dict[str, Any]], None], **ideas: Any) -> tuple[Net, PruningCallback, dict[str, Any]]:
    """Fit past the window, let something happen to the weights, fit on; return the zeros of before as well."""
    model, callback = Net(), ramp(**ideas)
    first = copy.deepcopy(model.state_dict())
    run = trainer(callbacks=[callback], max_epochs=3, limit_val_batches=0)
    run.fit(model, Batches(6), Batches(1))
    gone = {name: value == 0 for name, value in model.state_dict().items() if value.dim() > 1}
    between(model, first)
    run.fit_loop.max_epochs = 5
    run.fit(model, Batches(6), Batches(1))
    assert run.global_step == 30
    return model, callback, gone


@pytest.mark.parametrize("between", [all_at_first, one_weight, one_value])
def test_a_model_made_dense_between_two_fits_is_pruned_again(between: Callable[..., None]) -> None:
    model, callback, _ = fitted(between)
    assert sparsity(model) == 205 / 256
    assert callback.report is not None
    assert callback.report.zeros == 205


def test_a_model_that_was_left_alone_keeps_its_zeros() -> None:
    model, _, gone = fitted(nothing, criterion=Random())  # which would choose others
    assert all(torch.equal(model.state_dict()[name] == 0, zeros) for name, zeros in gone.items())


@pytest.mark.slow
def test_the_zeros_of_every_weight_count_and_the_weight_must_be_there() -> None:
    model, callback, _ = fitted(nothing)
    assert callback.report is not None
    assert callback.report.size == SIZE
    assert zeros_are_left(callback.report, model)
    for change in (one_value, one_weight):
        other = copy.deepcopy(model)
        change(other, {"net.3.weight": torch.ones(4, 16)})
        assert not zeros_are_left(callback.report, other)
    more = copy.deepcopy(model)
    weight = more.get_parameter("net.0.weight")
    with torch.no_grad():
        weight[tuple(weight.nonzero()[0].tolist())] = 0.0
    assert not zeros_are_left(callback.report, more)
    model.net[3] = nn.Identity()
    assert not zeros_are_left(callback.report, model)
