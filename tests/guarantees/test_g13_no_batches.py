"""A fit without one batch is an error that says so, and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Net, assert_plain, bits, differences, fit


@pytest.mark.parametrize("pruner", [0.9, Pruner(OneShot(0.5, 1))], ids=["share", "steps"])
@pytest.mark.parametrize("options", [{"limit_train_batches": 0}, {"batches": 0}, {"limit_train_batches": 0.0}], ids=str)
@pytest.mark.filterwarnings("ignore:Total length of")
def test_G13_no_batch_to_train_on(pruner: Any, options: dict[str, Any]) -> None:
    model, callback = Net(), PruningCallback(pruner)
    before = bits(model)
    with pytest.raises(ValueError, match=r"no batch to train on.*limit_train_batches="):
        fit(model, callback, max_epochs=2, **options)
    assert not differences(before, bits(model))
    assert_plain(model, callback=callback)
