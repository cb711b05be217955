"""What needs the whole of weights that are taken apart: it is collected for the moment, unless that is too much."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_prune.masks import MaskedWeight

MOST = 1 << 31
"""Values that are collected at an update, at most: 8 GB in float32."""


def check_collected(criterion: Any, pattern: Any, regularizer: Any, weights: Iterable[MaskedWeight]) -> None:
    """Raise ValueError that names the idea, where more values than `MOST` would be collected on every rank."""
    size = sum(weight.size for weight in weights if weight.shard is not None)
    if size <= MOST:
        return
    asked = {
        f"pattern={pattern}": not getattr(pattern, "single", False),
        f"criterion={criterion}": not getattr(criterion, "of_entries", False),
        f"regularizer={regularizer}": regularizer is not None and not getattr(regularizer, "of_entries", False),
    }
    for what, collects in asked.items():
        if collects:
            raise ValueError(
                f"{what} needs whole weights, and {size:,} values are taken apart over ranks: more than {MOST:,} are "
                "not collected on each of them. Use Element(), Magnitude() and a regularizer such as L2, or Targets"
            )
