"""Where the rounds of an iterative schedule lie, step by step: shares rounded to the nearest step, rounds down."""

from lightning_prune.schedule import Iterative


def steps_of(schedule: Iterative, until: int) -> list[int]:
    return [step for step in range(until + 1) if schedule.last_update(step) == step]


def test_rounds_that_do_not_divide_the_window_come_at_the_step_below() -> None:
    assert steps_of(Iterative(0.9, 0, 10, 4), 12) == [0, 3, 6, 10]
    assert steps_of(Iterative(0.9, 1, 9, 4), 12) == [1, 3, 6, 9]
    assert steps_of(Iterative(0.9, 2, 7, 3), 12) == [2, 4, 7]


def test_shares_of_a_run_are_rounded_to_the_nearest_step() -> None:
    assert steps_of(Iterative(0.9, 0.07, 0.58, 3).resolve(30), 30) == [2, 9, 17]
