"""G24: a weight that diverged during a fit is an error that names it, and a plain model is left.

For what else is not finite: tests/pruning/test_pruner_refusals.py.
"""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from tests.guarantees.helpers import Units, assert_plain, fit
from tests.guarantees.whole_units import channels


@pytest.mark.filterwarnings("ignore:.*were not zero in a forward:UserWarning")  # which is true
def test_G24_a_diverged_weight_is_named() -> None:
    model, callback = Units(), channels()

    def break_it(run: pl.Trainer) -> None:
        if run.global_step == 5:
            with torch.no_grad():
                model.net[6].weight[2, 3] = float("nan")

    model.in_step.append(break_it)
    with pytest.raises(ValueError, match=r"score of '[\w.]+\.weight' is not finite"):
        fit(model, callback, max_steps=20)
    assert_plain(model, callback=callback)
