"""What other pruning libraries get wrong in several fits, for whole units: one callback, two models, and going on."""

from __future__ import annotations

import pytest

from tests.guarantees.helpers import Batches, Units, fit, trainer
from tests.guarantees.whole_units import assert_pruned, channels, dead


@pytest.mark.filterwarnings("ignore:.*fit.ckpt_path:UserWarning")
def test_the_same_callback_fits_twice_and_goes_on() -> None:
    callback, model, other = channels(), Units(), Units(seed=2)
    fit(model, callback, max_steps=20)
    fit(other, callback, max_steps=20)
    assert_pruned(other, callback)
    run = trainer(callbacks=[callback], max_steps=20, limit_val_batches=0)
    third = Units(seed=3)
    run.fit(third, Batches(6), Batches(1))
    before = dead(third)
    run.fit_loop.epoch_loop.max_steps = 26
    run.fit(third, Batches(6), Batches(1))
    assert dead(third) == before
    assert_pruned(third, callback)
