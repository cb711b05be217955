"""The least sparsity at which something costs no more than asked, by halving."""

from __future__ import annotations

from collections.abc import Callable


def least_sparsity(cost: Callable[[float], float], at_most: float, precision: float = 1e-4) -> float | None:
    """Return the least sparsity at which a cost is no more than asked, or None if it is more even at 1.

    Args:
        cost: of a sparsity in [0, 1]. Where it does not fall all the way, the answer meets what is asked for, but may
            not be the least that does.
        at_most: what is asked for.
        precision: how near the answer is to the least one.
    """
    if cost(0.0) <= at_most:
        return 0.0
    if cost(1.0) > at_most:
        return None
    low, high = 0.0, 1.0
    while high - low > precision:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= at_most else (middle, high)
    return high
