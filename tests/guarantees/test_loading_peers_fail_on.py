"""What other pruning libraries get wrong: a dense `state_dict` loaded into a run that prunes."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
from torch import Tensor

from tests.guarantees.helpers import RAMP, Net, fit, ramp, zeros


@pytest.mark.filterwarnings("ignore:.*were not zero in a forward:UserWarning")  # which is true
@pytest.mark.parametrize("at", [1, 7, 8, 12, 15])
def test_a_dense_state_dict_loaded_in_the_middle_is_pruned_by_the_next_step(at: int) -> None:
    """Before the window, between updates, right before one, before the last, and after it."""
    callback, model, dense = ramp(), Net(), Net(seed=3)
    masks: dict[int, dict[str, Tensor]] = {}
    counted: dict[int, int] = {}

    def load(run: pl.Trainer) -> None:
        if run.global_step == at:
            model.load_state_dict(dense.state_dict(), strict=True)
            assert sum(zeros(model).values()) == 0

    def look(run: pl.Trainer) -> None:
        masks[run.global_step] = {name: weight.mask for name, weight in callback.pruner.masks.items()}
        counted[run.global_step] = sum(zeros(model).values())

    model.in_step.append(load)
    model.after_batch.append(look)
    fit(model, callback, max_steps=20)
    for step in range(1, 21):
        due = RAMP.last_update(step)
        assert counted[step] == (0 if due is None else round(RAMP.sparsity(due) * 256))
        returned = [int((mask & ~masks[step - 1][name]).sum()) for name, mask in masks[step].items() if step > 1]
        assert sum(returned) == 0
    assert counted[20] == 205
