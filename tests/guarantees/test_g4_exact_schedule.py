"""G4: after the update at step t the sparsity is the formula's at t, for any window and for whole units too."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import pytorch_lightning as pl
from torch import Tensor

from lightning_prune import PruningCallback
from lightning_prune.schedule import Geometric, Iterative, OneShot, Polynomial, Schedule
from tests.guarantees.helpers import RAMP, SIZE, UPDATES, Net, Units, fit, zeros
from tests.guarantees.spies import Record
from tests.guarantees.whole_units import assert_pruned, channels

STEPS = 20

Plan = dict[int, float]
"""Update step -> sparsity from there on."""


def on_curve(begin: int, end: int, frequency: int, curve: Callable[[float], float]) -> Plan:
    """The plan written out from the definition: a grid from `begin`, and `end`."""
    return {t: curve((t - begin) / (end - begin)) for t in [*range(begin, end, frequency), end]}


PLANS: dict[str, tuple[Schedule, Plan]] = {
    "cubic, end off the grid": (Polynomial(0.8, 3, 13, 3), on_curve(3, 13, 3, lambda p: 0.8 - 0.8 * (1 - p) ** 3)),
    "from step 0": (Polynomial(0.5, 0, 8, 4, 0.2), on_curve(0, 8, 4, lambda p: 0.5 - 0.3 * (1 - p) ** 3)),
    "linear, to the last step": (Polynomial(0.9, 5, 20, 4, power=1.0), on_curve(5, 20, 4, lambda p: 0.9 * p)),
    "frequency past the end": (Polynomial(0.6, 4, 9, 50, 0.1), {4: 0.1, 9: 0.6}),
    "shares": (Polynomial(0.8, 0.1, 0.65, 0.2), on_curve(2, 13, 4, lambda p: 0.8 - 0.8 * (1 - p) ** 3)),
    "shares and ints": (Polynomial(0.8, 2, 0.65, 4), on_curve(2, 13, 4, lambda p: 0.8 - 0.8 * (1 - p) ** 3)),
    "share below one step": (Polynomial(0.7, 4, 8, 0.01), on_curve(4, 8, 1, lambda p: 0.7 - 0.7 * (1 - p) ** 3)),
    "geometric": (Geometric(0.9, 2, 12, 4), on_curve(2, 12, 4, lambda p: 1 - 0.1 ** (1 - (1 - p) ** 2))),
    "one shot": (OneShot(0.75, 6), {6: 0.75}),
    "one shot before the first step": (OneShot(0.75, 0), {0: 0.75}),
    "one shot at a share": (OneShot(0.75, 0.5), {10: 0.75}),
    "iterative": (Iterative(0.875, 4, 12, 3), {4: 0.5, 8: 0.75, 12: 0.875}),
    "the one line": (
        PruningCallback(0.9).pruner.schedule,
        on_curve(1, 8, 1, lambda p: 0.9 - 0.9 * (1 - p) ** 3),
    ),
}


def expected(record: Record, plan: Plan) -> list[tuple[int, int | None, int]]:
    """The rows that the plan asks for, at the steps that were seen."""
    rows: list[tuple[int, int | None, int]] = []
    for step, _, _ in record.rows:
        last = max((t for t in plan if t <= step), default=None)
        rows.append((step, last, 0 if last is None else round(plan[last] * SIZE)))
    return rows


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", PLANS)
def test_G4_every_update_comes_at_its_step_with_the_formulas_sparsity(name: str, accumulate: int) -> None:
    schedule, plan = PLANS[name]
    model, callback = Net(norm=False), PruningCallback(schedule)
    record = Record(model, callback)
    fit(model, callback, batches=5 * accumulate, accumulate_grad_batches=accumulate, max_epochs=4)
    assert [step for step, _, _ in record.rows][-1] == STEPS
    assert record.rows == expected(record, plan)
    assert sum(zeros(model).values()) == round(max(plan.values()) * SIZE)


def test_G4_a_bound_in_steps_is_the_length_that_shares_refer_to() -> None:
    model, callback = Net(norm=False), PruningCallback(Polynomial(0.8, 0.1, 0.65, 0.2))
    record = Record(model, callback)
    fit(model, callback, batches=7, max_steps=STEPS, max_epochs=50)
    assert record.rows == expected(record, PLANS["shares"][1])


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 4}], ids=str)
def test_G4_G17_each_update_comes_at_its_step_and_is_as_near_as_whole_units_allow(options: dict[str, Any]) -> None:
    model, callback = Units(), channels()
    seen: dict[int, tuple[float, float]] = {}
    masks: list[dict[str, Tensor]] = []

    def look(_: pl.Trainer) -> None:
        pruner = callback.pruner
        masks.append({n: w.mask for n, w in pruner.masks.items()})
        if pruner.last_update is not None:
            report = pruner.report()
            seen[pruner.last_update] = report.sparsity, report.grain / report.size

    model.after_batch.append(look)
    fit(model, callback, max_steps=20, **options)
    assert tuple(seen) == UPDATES
    for step, (reached, grain) in seen.items():
        assert abs(reached - RAMP.sparsity(step)) <= grain
    assert not any((b[n] & ~a[n]).any() for a, b in pairwise(masks) for n in b)
    assert_pruned(model, callback)
