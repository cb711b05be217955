"""A group or weight tensor keeps something, and what it keeps is not multiplied by 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.gate import HardConcrete, Sigmoid, SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.learned.logits import open_gates
from lightning_prune.learned.thresholds import common_shift
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import OneShot, Polynomial
from tests.guarantees.helpers import Net, fit
from tests.learned.helpers import attached, attached_to_weights, learned, on, perceptron


def closed(masks: LearnedMasks, by: float) -> None:
    """Move all logits far to where gates close."""
    here = on(masks)
    with torch.no_grad():
        for logits in here.logits.values:
            logits += by
    here._hard.outdate()


@pytest.mark.parametrize("by", [-6.0, -60.0])
def test_G29_G9_the_unit_that_a_closed_group_keeps_is_alive_and_stripped_is_as_evaluated(by: float) -> None:
    model, x = perceptron(nn.Tanh()).eval(), torch.randn(7, 6)
    masks = attached(model, x, gate=HardConcrete())
    closed(masks, by)
    evaluated = model(x)
    report = masks.strip()
    assert torch.equal(model(x), evaluated)
    read: Any = [model[2].weight, model[5].weight]
    for weight in read:
        assert int((weight != 0).any(0).sum()) == 1, "one unit of each group is left, and is read"
    assert 0 < report.zeros < report.size


@pytest.mark.parametrize("gate", [HardConcrete(), Sigmoid(), SoftThreshold()])
def test_G29_G9_a_weight_tensor_whose_gates_are_all_closed_keeps_one_entry(gate: Any) -> None:
    model, x = perceptron(nn.Tanh()).eval(), torch.randn(7, 6)
    masks = attached_to_weights(model, gate=gate)
    closed(masks, 30.0 if isinstance(gate, SoftThreshold) else -10.0)
    evaluated = model(x)
    report = masks.strip()
    assert torch.equal(model(x), evaluated)
    assert [w.size - w.zeros for w in report.weights] == [1, 1, 1]


def test_what_is_open_is_multiplied_by_what_the_gate_says() -> None:
    gate, logits = HardConcrete(), torch.tensor([-200.0, -4.0, -2.0, 0.0, 5.0])
    factors, said, p = open_gates(gate, logits), gate.settled(logits), gate.probability(logits)
    assert torch.equal(factors[2:], said[2:])
    assert not bool(said[:2].any())
    assert factors[1] == p[1] > 1e-3
    assert factors[0] == torch.tensor(1e-3)


@pytest.mark.parametrize("gate", [HardConcrete(), SoftThreshold()])
def test_G29_G3_under_a_schedule_every_tensor_keeps_its_floor_and_the_count_holds(gate: Any) -> None:
    model = Net()
    with torch.no_grad():
        model.net[3].weight.mul_(1e-4)
    callback = learned(gate=gate, schedule=Polynomial(0.9, 0, 6, 3), mask_regularizer=None, pattern=Element(), lr=0.01)
    with pytest.warns(UserWarning, match=r"nearly nothing is left of net\.3\.weight .*weaken mask_regularizer"):
        fit(model, callback, max_steps=8, batches=8)
    assert callback.report is not None
    assert callback.report.zeros == round(0.9 * 256)
    assert all(w.zeros < w.size for w in callback.report.weights)


def test_what_a_tensor_keeps_at_least_does_not_move_the_others_thresholds() -> None:
    worth = [torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([-9.0, -8.0])]
    plain = [torch.tensor([False, False, True, True]), torch.tensor([False, False])]
    held = [torch.tensor([False, False, True, True]), torch.tensor([False, True])]
    assert common_shift(worth, plain) == common_shift(worth, held) == 2.5


def test_G29_units_by_a_schedule_that_asks_for_nearly_all() -> None:
    model: Any = perceptron(nn.Tanh()).eval()
    masks = LearnedMasks(OneShot(0.97, 2), HardConcrete(), None, Channel(example_inputs=torch.zeros(1, 6)))
    masks.attach(model, 4)
    for step in range(4):
        masks.after_step(step)
    masks.strip()
    live: list[Tensor] = [p for p in model.parameters() if p.dim() > 1]
    assert all(bool(weight.any()) for weight in live)
