"""Hold asks for nothing by itself, and for what a model came with once that is known."""

import pytest

from lightning_prune.schedule import Hold, HoldingSchedule, OneShot


def test_G4_hold_is_there_from_the_first_step_on() -> None:
    schedule = Hold().resolve(None)
    held = schedule.holding(0.7).resolve(100)
    for step in (0, 4, 500):
        assert (schedule.last_update(step), schedule.sparsity(step)) == (0, 0.0)
        assert (held.last_update(step), held.sparsity(step)) == (0, 0.7)
    assert held.final_sparsity == 0.7


def test_it_is_told_from_schedules_that_prune() -> None:
    assert isinstance(Hold(), HoldingSchedule)
    assert not isinstance(OneShot(0.5, 0), HoldingSchedule)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_G13_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="final_sparsity="):
        Hold().holding(share)
