"""What needs the whole of weights that are taken apart: it is collected for the moment, unless that is too much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import SitedPattern
from lightning_prune.pruning.units_of_pieces import grid_at, held_by_one

MOST = 1 << 31
"""Values that are collected at an update, at most: 8 GB in float32."""


def check_collected(criterion: Any, pattern: Any, regularizer: Any, weights: Iterable[MaskedWeight]) -> None:
    """Raise ValueError that names the idea, where more values than `MOST` would be collected on every rank."""
    apart = [weight for weight in weights if weight.shard is not None]
    size = sum(weight.size for weight in apart)
    if size <= MOST:
        return
    asked = {
        f"pattern={pattern}": lambda: _of_pattern(pattern, apart),
        f"criterion={criterion}": lambda: 0 if getattr(criterion, "of_entries", False) else size,
        f"regularizer={regularizer}": lambda: (
            0 if regularizer is None or getattr(regularizer, "of_entries", False) else size
        ),
    }
    for what, collected in asked.items():
        if (number := collected()) > MOST:
            raise ValueError(
                f"{what} collects {number:,} values of weights that are taken apart over ranks on each of them, and "
                f"more than {MOST:,} are too many. Use Element(), Magnitude() and a regularizer such as L2, or Targets"
            )


def _of_pattern(pattern: Any, weights: Sequence[MaskedWeight]) -> int:
    """Return how many values are collected for a pattern, at most: entries of some weights, units of others."""
    values, holds, where_they_are = 0, set[int | None](), True
    for weight in weights:
        at = pattern.at(weight.target.name) if isinstance(pattern, SitedPattern) else pattern
        single, grid = getattr(at, "single", False), grid_at(weight, at)
        values += weight.size if grid is None else grid.shard.size
        where_they_are &= single or (grid is not None and not getattr(at, "spares", False))
        holds.add(1 if single else None if grid is None else held_by_one(at, weight))
    return 0 if where_they_are and len(holds) == 1 and None not in holds else values
