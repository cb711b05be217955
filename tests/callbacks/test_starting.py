"""A strategy that takes parameters apart is refused by name, before anything is put on the model."""

from __future__ import annotations

import pytest
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, SingleDeviceStrategy, Strategy

from lightning_prune import PruningCallback
from lightning_prune.callbacks.starting import check_strategy
from tests.guarantees.helpers import Net, assert_plain, bits, differences, fit


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_G13_a_strategy_that_shards_is_refused_by_name(kind: type[Strategy]) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__} takes parameters apart.*use DDP"):
        check_strategy(object.__new__(kind))  # deepspeed and a GPU are not needed for this
    check_strategy(SingleDeviceStrategy())


def test_G13_it_is_refused_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    model, callback = Net(), PruningCallback(0.5)
    before = bits(model)
    monkeypatch.setattr("pytorch_lightning.strategies.FSDPStrategy", SingleDeviceStrategy)
    with pytest.raises(ValueError, match="SingleDeviceStrategy takes parameters apart"):
        fit(model, callback, max_steps=4)
    assert_plain(model, callback=callback)
    assert differences(before, bits(model)) == []
