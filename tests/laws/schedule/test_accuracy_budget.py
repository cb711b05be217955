"""`AccuracyBudget`: what follows from validations, step by step and whatever they say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.schedule import AccuracyBudget, ToldSchedule

BUDGET = AccuracyBudget("val/accuracy", 0.01, begin_step=20, end_step=100, share=0.5, finest=0.1, patience=1)


def after(*values: float, budget: AccuracyBudget = BUDGET, every: int = 10) -> Any:
    return budget.told([(every * (number + 1), value) for number, value in enumerate(values)])


def test_it_goes_on_within_the_budget_and_back_by_half_a_step_outside_of_it() -> None:
    assert isinstance(BUDGET, ToldSchedule)
    assert after(0.5).levels == ((20, 0.0),), "before it begins"
    told = after(0.93, 0.9)
    assert (told.reference, told.good, told.final_sparsity) == (0.93, 1, 0.5), "the best dense metric counts"
    assert after(0.8, 0.9, 0.895).final_sparsity == 0.75
    assert after(0.8, 0.9, 0.895, 0.88).levels == ((20, 0.0), (20, 0.5), (30, 0.75)), "patience for one validation"
    told = after(0.8, 0.9, 0.895, 0.88, 0.889)
    assert told.back
    assert (told.good, told.good_sparsity) == (2, 0.5)
    assert told.final_sparsity == 0.625, "half of the step before, from where it was good"
    assert not after(0.8, 0.9, 0.895, 0.88, 0.889, 0.9).back
    assert after(0.8, 0.9, 0.895, 0.88, 0.889, 0.9).final_sparsity == 0.71875


def test_it_ends_below_the_finest_step_at_most_and_at_the_end_of_its_window() -> None:
    told = after(0.8, 0.9, *[0.1] * 2, *[0.1] * 2, *[0.1] * 2)  # 0.5, 0.25, 0.125, and 0.0625 is below 0.1
    assert told.done
    assert told.back
    assert told.final_sparsity == 0.0
    assert told.end_step == told.levels[-1][0] == 80
    told = after(0.9, 0.9, *[0.9] * 20, budget=replace(BUDGET, most=0.95))
    assert (told.final_sparsity, told.done) == (0.95, True), "no more than `most`"
    told = AccuracyBudget("a", 0.0, begin_step=0, end_step=45, share=0.1).told([(10 * n, 0.9) for n in range(1, 20)])
    assert told.levels[-1][0] == 40, "from 45 on no more is taken"
    assert told.done
    capped = AccuracyBudget("a", 0.0, begin_step=0, end_step=1000, share=0.5, least=0.6, most=0.7)
    assert [after(*[1.0] * n, budget=capped).final_sparsity for n in (1, 2, 3)] == [0.6, 0.7, 0.7]
    assert after(1.0, 1.0, 1.0, budget=capped).done


def test_less_may_be_better_and_what_is_no_number_is_outside() -> None:
    loss = AccuracyBudget("val/loss", 0.1, mode="min", begin_step=0, end_step=100, patience=0)
    assert after(1.0, 1.05, budget=loss).good == 1
    assert after(1.0, 1.2, budget=loss).back
    assert after(1.0, math.nan, budget=loss).back
    assert after(math.nan, budget=loss).good is None
    assert after(math.nan, 1.0, budget=loss).reference == 1.0
    given = AccuracyBudget("a", 0.01, begin_step=0, end_step=100, reference=0.99)
    assert after(0.9, budget=given).good is None
    assert after(0.9, 0.985, budget=given).good == 1


def test_shares_of_the_run_become_steps_and_nothing_is_asked_before_anything_was_told() -> None:
    resolved = AccuracyBudget("a", 0.1, begin_step=0.25, end_step=0.75).resolve(100)
    assert (resolved.begin_step, resolved.end_step) == (25, 75)
    told: Any = BUDGET.told(())
    assert (told.begin_step, told.end_step, told.back, told.done, told.good) == (20, 100, False, False, None)
    assert (told.last_update(19), told.last_update(20), told.final_sparsity) == (None, 20, 0.0)
    assert BUDGET.told([(10, 0.5)]) == told.__class__(told.levels, 100, 0.5, None, 0.0, False, False)


@given(values=st.lists(st.floats(0, 1), max_size=30), drop=st.floats(0, 0.3), patience=st.integers(0, 2))
def test_what_holds_whatever_is_told(values: list[float], drop: float, patience: int) -> None:
    budget = AccuracyBudget("a", drop, begin_step=20, end_step=200, patience=patience)
    before: Any = None
    for number in range(1, len(values) + 1):
        told = after(*values[:number], budget=budget)
        assert told.good_sparsity <= told.final_sparsity <= budget.most
        if told.good is not None and told.reference is not None and told.good_sparsity:
            assert values[told.good] >= told.reference - drop - 1e-9
        for step in range(0, 10 * number + 15, 5):
            due = told.last_update(step)
            assert due is None or due <= step
            assert told.sparsity(step) <= budget.most
            if before is not None and step < 10 * number:
                assert told.sparsity(step) == before.sparsity(step), "the past stays what it was"
        closed = told.closed()
        assert closed.final_sparsity == told.good_sparsity
        assert closed.last_update(10**6) == closed.end_step
        before = told


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("drop", -0.1),
        ("drop", math.inf),
        ("mode", "up"),
        ("share", 0.0),
        ("share", 1.0),
        ("finest", 0.6),
        ("patience", -1),
    ],
)
def test_what_is_out_of_range_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{key}="):
        replace(BUDGET, **{key: value})
    with pytest.raises(ValueError, match=r"metric=''"):
        AccuracyBudget("", 0.1)
    with pytest.raises(ValueError, match=r"least=0\.9 and most=0\.5"):
        AccuracyBudget("a", 0.1, least=0.9, most=0.5)


@pytest.mark.parametrize("reference", ["0.9", math.nan, math.inf, True, [0.9]])
def test_G13_a_reference_that_is_no_number_is_refused(reference: Any) -> None:
    with pytest.raises(ValueError, match=r"reference=.* must be a finite number"):
        AccuracyBudget("a", 0.01, reference=reference)
