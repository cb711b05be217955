"""OneShot: one update, and nothing before it."""

from lightning_prune.schedule import OneShot


def test_G4_one_shot_is_one_update() -> None:
    schedule = OneShot(0.7, 5).resolve(None)
    assert [schedule.last_update(step) for step in (0, 4, 5, 6)] == [None, None, 5, 5]
    assert [schedule.sparsity(step) for step in (0, 4, 5, 6)] == [0.0, 0.0, 0.7, 0.7]
