"""The few numbers that every saved state begins with: of which version it is, and where in its window the run was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_prune import saved
from lightning_prune.schedule import Schedule

STATE_VERSION = 2
"""Version 1 held masks as bool tensors; see `saved_masks`."""


def header(schedule: Schedule, length: int | None, step: int | None) -> dict[str, Any]:
    """Return the part of a state that is a few numbers.

    Args:
        schedule: in whole steps.
        length: how many optimizer steps the run takes, None where nobody knows.
        step: of the latest update, None before the first.
    """
    return {
        "version": STATE_VERSION,
        "total_steps": length,
        "begin_step": schedule.begin_step,
        "end_step": schedule.end_step,
        "last_update": step,
        "sparsity": 0.0 if step is None else schedule.sparsity(step),
        "final_sparsity": schedule.final_sparsity,
    }


def check_version(state: Mapping[str, Any]) -> None:
    """Raise ValueError if a saved state is of a newer version, or none at all."""
    version = saved.mapping("the pruning state", state).get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= STATE_VERSION:
        raise ValueError(
            f"the pruning state has version {version!r}, this lightning_prune reads up to {STATE_VERSION}: "
            "update lightning_prune to resume from this checkpoint"
        )


def still_due(step: int | None, before: Schedule, now: Schedule) -> int | None:
    """Return the step of the latest update for a window moved to end there or earlier: its last update is due still."""
    moved_past = step is not None and now.end_step <= step < before.end_step
    return int(now.end_step) - 1 if moved_past else step
