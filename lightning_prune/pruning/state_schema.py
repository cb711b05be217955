"""What a pruner's saved state must be made of: checked in full before anything of it is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_prune import saved
from lightning_prune.pruning.checks import check_masks
from lightning_prune.pruning.saved_masks import check_saved_masks
from lightning_prune.schedule import Schedule

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a masked weight -> its shape."""
_STATE = "the pruning state"


def check_header(state: Mapping[str, Any], learned: bool, gates: bool = False) -> None:
    """Look at the few numbers that every state begins with.

    Args:
        state: what `state_dict` returned once, or what somebody has made of it. Other keys than those known are left.
        learned: it is for learned masks.
        gates: it is for dynamic gates.

    Raises:
        ValueError: a field is missing, of another type or out of range, or the state is of the other kind.
    """
    found = "DynamicGates" if "gates" in state else "LearnedMasks" if "finished" in state else "a Pruner"
    own = "DynamicGates" if gates else "LearnedMasks" if learned else "a Pruner"
    if found != own:
        raise ValueError(f"{_STATE} is one of {found}, and cannot be restored into {own}")
    total = saved.at(_STATE, state, "total_steps")
    if total is not None:
        saved.integer(f"{_STATE}: total_steps", total)
    saved.integer(f"{_STATE}: begin_step", saved.at(_STATE, state, "begin_step"))
    saved.integer(f"{_STATE}: end_step", saved.at(_STATE, state, "end_step"))
    last = saved.at(_STATE, state, "last_update")
    if last is not None:
        saved.integer(f"{_STATE}: last_update", last)
    for key in ("sparsity", "final_sparsity"):
        if state.get(key) is not None:  # an older state has none, and nor has one of learned masks without a schedule
            saved.number(f"{_STATE}: {key}", state[key], 0.0, 1.0)
    if learned:
        saved.boolean(f"{_STATE}: finished", state["finished"])
    if "stripped" in state:
        saved.boolean(f"{_STATE}: stripped", state["stripped"])


def check_position(state: Mapping[str, Any], schedule: Schedule) -> None:
    """Raise ValueError if the last update lies where neither the state's schedule nor this one has any."""
    last = state["last_update"]
    if last is not None and last > state["end_step"] and schedule.last_update(last) != last:
        raise ValueError(f"{_STATE}: last_update is {last}, past its end_step={state['end_step']}")


def check_thresholds(state: Mapping[str, Any], shapes: Shapes) -> None:
    """Raise ValueError unless there is a threshold for each weight, or for some where the masks are stripped."""
    thresholds = saved.mapping(f"{_STATE}: thresholds", saved.at(_STATE, state, "thresholds"))
    for name, value in thresholds.items():
        saved.number(f"{_STATE}: thresholds[{name!r}]", value)
    missing = sorted(set(shapes) - set(thresholds))
    if missing and not state.get("stripped"):
        raise ValueError(f"{_STATE}: thresholds has none for {missing[:4]}")


def check_body(state: Mapping[str, Any], shapes: Shapes) -> None:
    """Look at the masks of a state, and at what belongs to each.

    Raises:
        ValueError: they are not the masks of these weights, or what stands beside them does not fit them.
    """
    masks = saved.at(_STATE, state, "masks")
    if state["version"] == 1:
        bools = saved.mapping(f"{_STATE}: masks", masks)
        found = {n: tuple(saved.tensor(f"{_STATE}: masks[{n!r}]", m, bools=True).shape) for n, m in bools.items()}
    else:
        found = check_saved_masks(f"{_STATE}: masks", masks)
    check_masks(shapes, found)
    check_thresholds(state, shapes)
    for key, bools in (("going", True), ("dense", False), ("returning", False)):
        values = saved.mapping(f"{_STATE}: {key}", state.get(key, {}))
        for name, value in values.items():
            saved.tensor(f"{_STATE}: {key}[{name!r}]", value, _shape(key, name, shapes), bools)
    memory = saved.mapping(f"{_STATE}: memory", state.get("memory", {}))
    for name, values in memory.items():
        _shape("memory", name, shapes)
        for key, value in saved.mapping(f"{_STATE}: memory[{name!r}]", values).items():
            saved.tensor(f"{_STATE}: memory[{name!r}][{key!r}]", value)


def _shape(key: str, name: str, shapes: Shapes) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(f"{_STATE}: {key} has {name!r}, which is not among the targets")
    return shapes[name]
