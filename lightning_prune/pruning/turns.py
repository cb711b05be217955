"""Layers that are pruned one after the other: whose turn comes when, and what is gone by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_prune.schedule import Schedule, TurnSchedule
from lightning_prune.scope import Layer, Pool

Turns = Mapping[str, int]
"""Name of a layer, as a scope sees it -> the number of its turn, from 0."""
_SHOWN = 12


def in_turn(pools: Sequence[Pool], layers: Sequence[Layer], turns: Turns, done: int) -> list[Pool]:
    """Return the pools with nothing more to drop where a layer's turn has not come."""
    pruned = {layer.name: (layer.pruned, layer.pruned / max(1, layer.size)) for layer in layers}
    return [pool if turns[pool.names[0]] < done else Pool(pool.names, *pruned[pool.names[0]]) for pool in pools]


def check_apart(pools: Sequence[Pool], scope: Any, schedule: Any) -> None:
    """Raise ValueError if layers that are pruned one after the other are ranked together."""
    for pool in pools:
        if len(pool.names) > 1:
            raise ValueError(
                f"scope={scope} ranks {', '.join(pool.names[:3])}{' ...' if len(pool.names) > 3 else ''} together, and "
                f"{schedule} prunes one layer after the other: use scope=Uniform(), ERK() or ByLayer(...)"
            )


def take_turns(updates: Sequence[Any], schedule: Any, order: Sequence[str]) -> tuple[list[Any], Schedule]:
    """Return updates that prune one layer after the other, and the schedule of all of them.

    Args:
        updates: of all rules.
        schedule: a `TurnSchedule` in whole steps.
        order: the names of all weights, in the model's order.

    Raises:
        ValueError: layers are ranked together, or there are more of them than steps.
    """
    places = {name: number for number, name in enumerate(order)}
    each = [(u, name, first, gone) for u, update in enumerate(updates) for name, first, gone in update.by_layer()]
    each.sort(key=lambda one: places[one[2]])
    turns = {name: number for number, (_, name, _, _) in enumerate(each)}
    made = [
        replace(
            update,
            turns=turns,
            schedule=update.schedule.in_turn(_cumulated([gone if u == n else 0.0 for u, _, _, gone in each])),
        )
        for n, update in enumerate(updates)
    ]
    return made, schedule.in_turn(_cumulated([gone for *_, gone in each]))


def _cumulated(gone: Sequence[float]) -> list[float]:
    """Return which share of all is gone after each; all of it after the last."""
    total = sum(gone)
    if not total:
        return [1.0] * len(gone)
    return [min(1.0, sum(gone[: n + 1]) / total) for n in range(len(gone) - 1)] + [1.0]


def note_of_turns(updates: Sequence[Any], schedule: Any) -> list[str]:
    """Return a line for the plan that says which layer is pruned when; none where all are pruned together."""
    turns: Turns = next((update.turns for update in updates if getattr(update, "turns", None)), {})
    if not turns or not isinstance(schedule, TurnSchedule):
        return []
    told = [f"{name} at step {schedule.turn(number)}" for name, number in sorted(turns.items(), key=lambda t: t[1])]
    if len(told) > _SHOWN:
        told = [*told[: _SHOWN - 1], f"{len(told) - _SHOWN} more", told[-1]]
    return [f"one layer after the other: {', '.join(told)}"]
