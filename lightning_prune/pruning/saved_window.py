"""The window in a saved state: what a resumed run finds behind it, and whether what it asks for can still happen."""

from __future__ import annotations

import warnings
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


def check_saved(state: Mapping[str, Any], schedule: Schedule, reversible: bool) -> None:
    """Look at whether a schedule can still do with a saved state what it asks for.

    Warns where it asks for less than the state has, and nothing comes back.

    Args:
        state: as saved; one of an older version says nothing of its sparsity, and passes.
        schedule: the one to go on with, in whole steps.
        reversible: whether pruned weights can come back.

    Raises:
        ValueError: it asks for more, and its last update lies behind the state.
    """
    last, sparsity = state["last_update"], state.get("sparsity")
    if last is None or sparsity is None:
        return
    if schedule.final_sparsity < sparsity - 1e-6 and not reversible:
        warnings.warn(
            f"final_sparsity={schedule.final_sparsity} is less than is pruned already: {describe(state)}. Pruned "
            "weights stay zero; Pruner(reversible=True) from the start lets them compete again",
            stacklevel=2,
        )
    if last < schedule.end_step or schedule.final_sparsity <= sparsity:
        return
    raise ValueError(
        f"{_missed(state, schedule)}, and the window of now, begin_step={schedule.begin_step}, "
        f"end_step={schedule.end_step}, is over by then. Give a window after it, in optimizer steps: "
        f"Polynomial({schedule.final_sparsity}, begin_step={last + 1}, end_step=..., pruning_frequency=..., "
        f"initial_sparsity={sparsity:g}) goes on from the saved masks"
    )


def check_final(state: Mapping[str, Any], schedule: Schedule) -> None:
    """Raise ValueError if learned masks are final in a saved state, at less than a schedule asks for.

    Args:
        state: as saved; one without a schedule says nothing of its sparsity, and passes.
        schedule: the one to go on with, in whole steps.
    """
    sparsity = state.get("sparsity")
    final = state["finished"] or state.get("stripped", False)
    if final and sparsity is not None and schedule.final_sparsity > sparsity:
        raise ValueError(
            f"{_missed(state, schedule)}, and masks that are final are learned no further. Begin a new fit from the "
            "weights alone, model.load_state_dict(torch.load(FILE)['state_dict']), without ckpt_path"
        )


def _missed(state: Mapping[str, Any], schedule: Schedule) -> str:
    return f"final_sparsity={schedule.final_sparsity} would not be reached: {describe(state)}"
