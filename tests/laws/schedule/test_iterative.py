"""Iterative: every round removes the same share of what is left, and the rounds must fit into the window."""

from itertools import pairwise
from typing import Any

import pytest

from lightning_prune.schedule import Iterative


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
