"""A step that is no update: the host waits for nothing, but for one look at the first step after an update."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner
from lightning_prune.pattern import Channel
from lightning_prune.regularizer import L2, GroupLasso
from lightning_prune.schedule import OneShot
from tests.device.accelerator import on_the_device
from tests.device.runs import batch, net
from tests.device.simulated import DEVICE, simulated
from tests.guarantees.helpers import Net, draw, fit, momentum, ramp
from tests.helpers import same

CHANNEL = Channel(example_inputs=torch.zeros(1, 4, 3, 3))


@pytest.mark.parametrize(
    "chosen",
    [{}, {"pattern": CHANNEL}, {"reversible": True}, {"regularizer": L2(0.01)}, {"regularizer": GroupLasso(0.01)}],
    ids=["weights", "units", "reversible", "L2", "group lasso"],
)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW], ids=["SGD", "AdamW"])
def test_the_host_waits_for_nothing_from_the_second_step_after_an_update_on(
    chosen: dict[str, Any], optimizer: Any
) -> None:
    with simulated() as device:
        model = net().to(DEVICE)
        steps = optimizer(model.parameters(), lr=0.01)
        pruner = Pruner(OneShot(0.5, 0), **chosen)
        pruner.attach(model)
        model(batch(0, DEVICE)).square().mean().backward()  # group lasso and units look at gradients
        assert pruner.after_step(0, [steps])
        for step in range(1, 18):  # more than the steps at which zeros are looked at or written again
            inputs = batch(step, DEVICE)
            with device.counted() as counts:
                steps.zero_grad()
                model(inputs).square().mean().backward()
                pruner.before_step(steps)
                steps.step()
                assert not pruner.after_step(step, [steps])
            assert counts.synchronizations <= (step == 1), counts.where
            assert counts.copies == counts.synchronizations
            assert counts.launches > 0


def test_a_trainer_ends_with_the_cpus_weights() -> None:
    expected, found, there = Net(momentum), Net(momentum), set[str]()
    data = DataLoader(TensorDataset(*draw(0, torch.zeros(1), size=40)), batch_size=8)
    fit(expected, ramp(), max_steps=15, loader=lambda run, batches: data)
    found.after_batch.append(lambda _: there.update(p.device.type for p in found.parameters()))
    with simulated():
        fit(found, ramp(), max_steps=15, loader=lambda run, batches: data, **on_the_device())
    assert there == {DEVICE.type}
    assert same(dict(found.state_dict()), dict(expected.state_dict()))
