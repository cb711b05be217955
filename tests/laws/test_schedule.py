"""Laws of every schedule under conf/pruner/schedule; what single ones compute is in tests/laws/schedule."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import ideas, vary

SCHEDULES = pytest.mark.parametrize("schedule", ideas("schedule"))


def with_argument(*names: str) -> Any:
    """Return the schedules that are told one of these: what an argument promises holds where it is one."""
    cases = [case for case in ideas("schedule") if {field.name for field in fields(case.values[0])} & {*names}]
    assert len(cases) >= 4
    return pytest.mark.parametrize("schedule", cases)


TOLD_WHEN, TOLD_HOW_SPARSE = with_argument("begin_step", "step"), with_argument("final_sparsity")
TOTALS = pytest.mark.parametrize("total", [50, 777, 4000])


def check_laws(schedule: Any, until: int) -> None:
    """Walk over every step and compare the answers with what the Protocol promises."""
    begin, end, final = schedule.begin_step, schedule.end_step, schedule.final_sparsity
    assert type(begin) is int
    assert type(end) is int
    assert 0 <= begin <= end
    newest, before = None, 0.0
    for step in range(until):
        due, sparsity = schedule.last_update(step), schedule.sparsity(step)
        assert 0.0 <= sparsity <= 1.0
        if step:
            assert sparsity >= before, f"falls at step {step}"
        assert sparsity <= final
        if due == step:
            newest = step
        assert due == newest, f"step {step}: the newest update is {newest}"
        if due is not None:
            assert begin <= due <= end
            assert schedule.last_update(due) == due
        before = sparsity
    for step in (end, end + 1, end + 1000):
        assert schedule.last_update(step) == end
        assert schedule.sparsity(step) == final


@SCHEDULES
@TOTALS
def test_G4_every_step_of_a_run(schedule: Any, total: int) -> None:
    resolved = schedule.resolve(total)
    assert resolved.end_step <= total or isinstance(schedule.end_step, int)
    check_laws(resolved, total + 3)


@SCHEDULES
@given(data=st.data())
def test_G4_any_window_that_can_be_made(schedule: Any, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, 40), "begin_step")
    end = data.draw(st.integers(begin, begin + 60), "end_step")
    final = data.draw(st.floats(0, 0.999, allow_subnormal=False), "final_sparsity")
    made = vary(
        schedule,
        final_sparsity=final,
        initial_sparsity=data.draw(st.one_of(st.just(0.0), st.just(final), st.floats(0, final)), "initial_sparsity"),
        begin_step=begin,
        step=begin,
        end_step=end,
        pruning_frequency=data.draw(st.integers(1, 70), "pruning_frequency"),
        rounds=data.draw(st.integers(1, end - begin + 1), "rounds"),
        power=data.draw(st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.5]), "power"),
    )
    check_laws(made.resolve(None), begin + 70)


@TOLD_WHEN
def test_G4_nothing_before_the_window(schedule: Any) -> None:
    later = vary(schedule, begin_step=17, step=17, end_step=40, pruning_frequency=5).resolve(None)
    assert [later.last_update(step) for step in range(17)] == [None] * 17


@SCHEDULES
def test_G12_a_dense_schedule_is_legal(schedule: Any) -> None:
    dense = vary(schedule, final_sparsity=0.0, initial_sparsity=0.0).resolve(200)
    assert {dense.sparsity(step) for step in range(210)} == {0.0}


@TOLD_WHEN
def test_G13_a_share_is_refused_until_the_length_is_known(schedule: Any) -> None:
    shares = vary(schedule, begin_step=0.1, step=0.1, end_step=0.5, pruning_frequency=0.01)
    with pytest.raises(ValueError, match="how many optimizer steps the run takes is not known"):
        shares.resolve(None)
    for ask in (shares.last_update, shares.sparsity):
        with pytest.raises(ValueError, match=r"resolve\(total_steps\)"):
            ask(3)
    resolved = shares.resolve(1000)
    assert resolved.begin_step == 100
    assert resolved.end_step in (100, 500)
    assert resolved.resolve(77) == resolved, "steps keep their meaning"


@TOLD_HOW_SPARSE
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_G13_a_sparsity_that_is_no_share_is_refused(schedule: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="final_sparsity="):
        vary(schedule, final_sparsity=value)


@TOLD_WHEN
@pytest.mark.parametrize("value", [-1, -0.5, 1.5, float("nan"), True, "7", None])
def test_G13_a_position_that_is_none_is_refused(schedule: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="step="):
        vary(schedule, begin_step=value, step=value)
