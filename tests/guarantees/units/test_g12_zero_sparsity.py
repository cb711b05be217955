"""G12 for whole units: a final sparsity of 0 is bitwise the run without the callback."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Units, bits, differences, fit
from tests.guarantees.whole_units import channels


@pytest.mark.parametrize("accumulate", [1, 2])
def test_G12_zero_sparsity_is_bitwise_the_run_without_the_callback(accumulate: int) -> None:
    states: list[Any] = []
    for callbacks in ([], [channels(schedule=OneShot(0.0, 3))]):
        torch.manual_seed(4)
        dropout = nn.Sequential(*Units().net[:8], nn.Dropout(0.3), nn.Linear(10, 4))
        model = Units(net=dropout)
        run = fit(model, *callbacks, max_steps=20, accumulate_grad_batches=accumulate)
        states.append([bits(model), run.optimizers[0].state_dict()["state"], torch.get_rng_state()])
    assert differences(states[0], states[1]) == []
