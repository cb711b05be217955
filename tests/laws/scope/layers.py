"""Layers of any shapes, and what a scope takes of each pool of them."""

from math import prod
from typing import Any

from hypothesis import strategies as st

from lightning_prune.scope import Layer

SHAPES = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6)


def layers_of(shapes: list[tuple[int, ...]], pruned: dict[str, int] | None = None) -> list[Layer]:
    """Return layers of these shapes, named by their place."""
    gone = pruned or {}
    return [Layer(f"layer{i}", shape, prod(shape), gone.get(f"layer{i}", 0)) for i, shape in enumerate(shapes)]


def drops(pools: Any) -> dict[tuple[str, ...], int]:
    return {pool.names: pool.drop for pool in pools}
