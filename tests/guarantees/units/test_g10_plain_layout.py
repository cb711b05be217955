"""G10 for whole units: keys, shapes, dtypes and the order of parameters never change."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_prune.regularizer import L1
from tests.guarantees.helpers import Units, fit, layout
from tests.guarantees.whole_units import channels


@pytest.mark.parametrize("reversible", [False, True])
def test_G10_layout_is_that_of_an_unpruned_twin_at_every_step(reversible: bool) -> None:
    model, twin = Units(), Units()
    identities = [id(p) for p in model.parameters()]
    seen: list[Any] = []
    model.after_batch.append(lambda _: seen.append(layout(model)))
    fit(model, channels(reversible=reversible, regularizer=L1(0.01)), max_steps=20)
    assert seen == [layout(twin)] * 20
    assert layout(model) == layout(twin)
    assert [id(p) for p in model.parameters()] == identities
