"""G5: a pruned weight stays pruned; it returns only where masks are reversible, and there it does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from lightning_prune.criterion import FirstOrderDelta, Magnitude, Random
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, fit, momentum, ramp
from tests.guarantees.spies import Record

STEPS = 20


@pytest.mark.parametrize(
    ("criterion", "reversible"),
    [(Magnitude(), False), (Magnitude(), True), (Random(), False), (Random(), True), (FirstOrderDelta(0.5), False)],
)
def test_G5_a_pruned_weight_returns_only_where_reversible(criterion: Any, reversible: bool) -> None:
    slow = Polynomial(0.5, 2, 20, 2, initial_sparsity=0.4, power=1.0)
    model, callback = Net(momentum), ramp(schedule=slow, criterion=criterion, reversible=reversible)
    record = Record(model, callback)
    fit(model, callback, max_steps=STEPS)
    pairs = [(a[n], b[n]) for a, b in pairwise(record.masks) for n in a]
    assert len(record.masks) == 11
    returned = sum(int((later & ~earlier).sum()) for earlier, later in pairs)
    assert (returned > 0) == reversible
