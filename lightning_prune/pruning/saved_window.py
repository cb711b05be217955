"""The window in a saved state: what a resumed run finds behind it, and whether what it asks for can still happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_prune.report import percent
from lightning_prune.schedule import Schedule


def describe(state: Mapping[str, Any]) -> str:
    """Return in one line what the window of a saved state is and where in it the run was."""
    last, sparsity, final = state["last_update"], state.get("sparsity"), state.get("final_sparsity")
    where = "before its first update" if last is None else f"after the update at step {last}"
    now = "" if sparsity is None or last is None else f", at a sparsity of {percent(sparsity)}"
    aim = "" if final is None else f" to {percent(final)}"
    return (
        f"the saved window is begin_step={state['begin_step']}, end_step={state['end_step']}{aim}; saved {where}{now}"
    )


def check_saved(state: Mapping[str, Any], schedule: Schedule) -> None:
    """Raise ValueError if a schedule asks for more than a saved state has, and its last update lies behind that state.

    Args:
        state: as saved; one of an older version, or of learned masks, says nothing of its sparsity, and passes.
        schedule: the one to go on with, in whole steps.
    """
    last, sparsity = state["last_update"], state.get("sparsity")
    if last is None or sparsity is None or last < schedule.end_step or schedule.final_sparsity <= sparsity:
        return
    raise ValueError(
        f"final_sparsity={schedule.final_sparsity} would not be reached: {describe(state)}, and the window of now, "
        f"begin_step={schedule.begin_step}, end_step={schedule.end_step}, is over by then. Give a window after it, in "
        f"optimizer steps: Polynomial({schedule.final_sparsity}, begin_step={last + 1}, end_step=..., "
        f"pruning_frequency=..., initial_sparsity={sparsity:g}) goes on from the saved masks"
    )
