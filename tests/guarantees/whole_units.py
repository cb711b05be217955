"""Masks of whole channels and hidden units: the callback for them, and what the model `Units` is like afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import PruningCallback
from lightning_prune.pattern import Channel
from tests.guarantees.helpers import ramp


def whole_units(**options: Any) -> Channel:
    """The pattern, where Torch-Pruning is there to find the units; without it, the test is skipped."""
    pytest.importorskip("torch_pruning")
    return Channel(**options)


def channels(**ideas: Any) -> PruningCallback:
    """The callback for whole units, with the schedule `RAMP`."""
    return ramp(pattern=whole_units(), **ideas)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of two or more dimensions, by name."""
    return {n: p for n, p in model.named_parameters() if p.dim() > 1}


def dead(model: nn.Module) -> dict[str, int]:
    """How many outputs of every layer of `Units` have no weights left."""
    return {n: int((p.flatten(1) == 0).all(1).sum()) for n, p in prunable(model).items()}


def assert_pruned(model: nn.Module, callback: PruningCallback) -> None:
    """Assert that about .8 of the weights are zero, in whole units, norms and biases with them."""
    assert callback.report is not None
    assert abs(callback.report.sparsity - 0.8) <= callback.report.grain / callback.report.size
    named = dict(model.named_parameters())
    assert callback.report.zeros == sum(int((named[w.name] == 0).sum()) for w in callback.report.weights)
    stem, scale, shift = (named[f"net.{n}"].detach() for n in ("1.weight", "2.weight", "2.bias"))
    gone = (stem.flatten(1) == 0).all(1)
    assert 0 < int(gone.sum()) < 8
    assert torch.equal(gone, scale == 0)
    assert torch.equal(gone, shift == 0)
    assert not (named["net.8.weight"] == 0).all(1).any()
