"""A fit without one batch is an error that says so, and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Net, assert_plain, bits, differences, fit

SHARES, STEPS = 0.9, Pruner(OneShot(0.5, 1))


@pytest.mark.parametrize(
    ("pruner", "options", "said"),
    [
        (SHARES, {"batches": 0}, "no batch to train on.*limit_train_batches=1.0"),
        (STEPS, {"batches": 0}, "no batch to train on"),
        (SHARES, {"limit_train_batches": 0}, "is not known beforehand.*limit_train_batches=0"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Total length of")
def test_G13_no_batch_to_train_on(pruner: Any, options: dict[str, Any], said: str) -> None:
    model, callback = Net(), PruningCallback(pruner)
    before = bits(model)
    with pytest.raises(ValueError, match=said):
        fit(model, callback, max_epochs=2, **options)
    assert not differences(before, bits(model))
    assert_plain(model, callback=callback)
