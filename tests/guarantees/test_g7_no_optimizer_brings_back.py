"""G7: no optimizer of PyTorch brings a pruned weight back, nor a pruned unit; without the callback, momentum does."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.guarantees.helpers import MakeOptimizer, Net, Units, adamw, fit, momentum, ramp, sparsity
from tests.guarantees.spies import Spy
from tests.guarantees.whole_units import assert_pruned, channels

SGD, ADAM = torch.optim.SGD, torch.optim.AdamW
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "momentum": momentum,
    "nesterov": lambda p: SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd_foreach": lambda p: SGD(p, 0.05, momentum=0.9, foreach=True),
    "sgd_fused": lambda p: SGD(p, 0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "adamw": adamw,
    "adamw_foreach": lambda p: ADAM(p, 0.01, foreach=True),
    "adamw_fused": lambda p: ADAM(p, 0.01, fused=True),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01),
    "radam": lambda p: torch.optim.RAdam(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.01),
    "asgd": lambda p: torch.optim.ASGD(p, 0.05),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "groups": lambda p: _groups(list(p)),
}


def _groups(parameters: list[nn.Parameter]) -> Optimizer:
    wide = [p for p in parameters if p.dim() > 1]
    thin = [p for p in parameters if p.dim() < 2]
    return ADAM([{"params": wide, "weight_decay": 0.5}, {"params": thin, "lr": 0.1, "weight_decay": 0.0}], lr=0.02)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_G7_no_optimizer_brings_a_weight_back(name: str) -> None:
    callback = ramp()
    spy = Spy(callback)
    model = Net(spy.watched(OPTIMIZERS[name]))
    fit(model, callback, spy, max_steps=50)
    assert spy.late == [0] * 50
    assert spy.early == [0] * 50  # gradients and moments are zero, so the step itself moves nothing
    assert sparsity(model) == round(0.8 * 256) / 256


def test_G7_without_the_callback_momentum_brings_weights_back() -> None:
    model = Net(momentum)
    pruned: list[Tensor] = []

    def prune_once(trainer: pl.Trainer) -> None:
        weight = model.net[0].weight.data
        if trainer.global_step == 5:
            pruned.append(weight.abs() < 0.2)
            weight.masked_fill_(pruned[0], 0.0)

    model.after_batch.append(prune_once)
    fit(model, max_steps=6)
    assert (model.net[0].weight.detach()[pruned[0]] != 0).any()


def test_G7_lbfgs_whose_step_reads_no_moments_is_masked_after_it() -> None:
    callback = ramp()
    spy = Spy(callback)
    model = Net(spy.watched(lambda p: torch.optim.LBFGS(p, 0.1, max_iter=4)), norm=False)
    fit(model, callback, spy, max_steps=16)
    assert spy.late == [0] * 16
    assert sparsity(model) == round(0.8 * 256) / 256


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_G7_no_optimizer_brings_a_unit_back(name: str) -> None:
    callback = channels()
    spy = Spy(callback)
    model = Units(spy.watched(OPTIMIZERS[name]))
    fit(model, callback, spy, max_steps=50)
    assert spy.late == [0] * 50
    assert spy.early == [0] * 50
    assert_pruned(model, callback)
