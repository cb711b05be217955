"""Laws of every schedule under conf/pruner/schedule, and the formulas of those that are there."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.schedule import Geometric, Iterative, OneShot, Polynomial
from tests.helpers import ideas, vary

SCHEDULES = pytest.mark.parametrize("schedule", ideas("schedule"))
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


@SCHEDULES
def test_G4_nothing_before_the_window(schedule: Any) -> None:
    later = vary(schedule, begin_step=17, step=17, end_step=40, pruning_frequency=5).resolve(None)
    assert [later.last_update(step) for step in range(17)] == [None] * 17


@SCHEDULES
def test_G12_a_dense_schedule_is_legal(schedule: Any) -> None:
    dense = vary(schedule, final_sparsity=0.0, initial_sparsity=0.0).resolve(200)
    assert {dense.sparsity(step) for step in range(210)} == {0.0}


@SCHEDULES
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


@SCHEDULES
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_G13_a_sparsity_that_is_no_share_is_refused(schedule: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="final_sparsity="):
        vary(schedule, final_sparsity=value)


@SCHEDULES
@pytest.mark.parametrize("value", [-1, -0.5, 1.5, float("nan"), True, "7", None])
def test_G13_a_position_that_is_none_is_refused(schedule: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="step="):
        vary(schedule, begin_step=value, step=value)


@pytest.mark.parametrize("kind", [Polynomial, Geometric])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"begin_step": 9, "end_step": 8}, "end_step=8 must not come before begin_step=9"),
        ({"begin_step": 0.9, "end_step": 0.8}, "end_step=0.8 must not come before begin_step=0.9"),
        ({"initial_sparsity": 0.95}, "initial_sparsity=0.95 must not be above final_sparsity=0.9"),
        ({"pruning_frequency": 0}, "pruning_frequency=0 must be at least 1"),
        ({"pruning_frequency": -3}, "pruning_frequency=-3"),
        ({"power": 0.0}, "power=0.0"),
        ({"power": float("inf")}, "power=inf"),
    ],
)
def test_G13_windows_that_make_no_sense(kind: type[Any], bad: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"final_sparsity": 0.9, "begin_step": 0, "end_step": 10, "pruning_frequency": 1}
    with pytest.raises(ValueError, match=message):
        kind(**{**good, **bad})


def test_G13_a_share_that_resolves_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="is step 50, before begin_step=60"):
        Polynomial(0.9, begin_step=60, end_step=0.5, pruning_frequency=1).resolve(100)


def test_G4_polynomial_against_the_reference() -> None:
    schedule = Polynomial(0.9, begin_step=10_000, end_step=100_000, pruning_frequency=100)
    assert schedule.sparsity(20_000) == pytest.approx(0.267901, abs=5e-7)
    assert schedule.sparsity(55_000) == pytest.approx(0.7875, abs=1e-12)
    assert schedule.sparsity(9_999) == 0.0
    assert Polynomial(0.8, 0, 100, 10, initial_sparsity=0.2, power=1).sparsity(50) == pytest.approx(0.5)


def test_G4_off_the_grid_the_end_is_one_update_more() -> None:
    schedule = Polynomial(0.9, begin_step=0, end_step=1000, pruning_frequency=300)
    assert {schedule.last_update(step) for step in range(2000)} == {0, 300, 600, 900, 1000}
    assert schedule.sparsity(900) == pytest.approx(0.8991)


@given(
    final=st.floats(0.01, 0.99),
    share=st.floats(0, 1),
    width=st.integers(1, 200),
    at=st.floats(0, 1),
    power=st.floats(0.2, 5),
)
def test_G4_geometric_formula(final: float, share: float, width: int, at: float, power: float) -> None:
    initial, step = share * final, round(at * width)
    p = step / width
    expected = 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** (1 - (1 - p) ** power)
    made = Geometric(final, 5, 5 + width, 1, initial_sparsity=initial, power=power)
    assert made.sparsity(5 + step) == pytest.approx(expected, abs=1e-12)


def test_G13_geometric_cannot_reach_everything() -> None:
    with pytest.raises(ValueError, match=r"final_sparsity=1\.0 cannot be reached"):
        Geometric(1.0, 0, 10, 1)


def test_G4_iterative_removes_the_same_share_of_what_is_left_each_round() -> None:
    schedule = Iterative(0.9, begin_step=10, end_step=40, rounds=4).resolve(None)
    updates = sorted({schedule.last_update(step) or 0 for step in range(10, 60)})
    assert updates == [10, 20, 30, 40]
    kept = [1.0, *(1 - schedule.sparsity(step) for step in updates)]
    assert [after / before for before, after in pairwise(kept)] == pytest.approx([0.1**0.25] * 4)


@pytest.mark.parametrize("rounds", [0, -1, True, 2.0])
def test_G13_rounds_that_are_none(rounds: Any) -> None:
    with pytest.raises(ValueError, match="rounds="):
        Iterative(0.9, 0, 10, rounds)


def test_G13_more_rounds_than_steps() -> None:
    with pytest.raises(ValueError, match="rounds=5 do not fit between begin_step=3 and end_step=6"):
        Iterative(0.9, 3, 6, 5).resolve(None)


def test_G4_one_shot_is_one_update() -> None:
    schedule = OneShot(0.7, 5).resolve(None)
    assert [schedule.last_update(step) for step in (0, 4, 5, 6)] == [None, None, 5, 5]
    assert [schedule.sparsity(step) for step in (0, 4, 5, 6)] == [0.0, 0.0, 0.7, 0.7]
