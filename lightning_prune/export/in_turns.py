"""How long calls take beside each other, in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

Timer = Callable[[Sequence[Callable[[], object]]], list[float]]
"""From calls to the milliseconds that each of them takes."""
_TURNS = 9
_BLOCK_MS, _MOST = 2.0, 100
"""How long a block of calls is to take, and how many it has at most."""


def in_turns(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return the milliseconds of each call: the least of short blocks, in turns, so that what else runs meets all."""
    for call in calls:
        call()
    numbers = [max(1, min(_MOST, math.ceil(_BLOCK_MS / max(_block_ms(call, 1), 1e-6)))) for call in calls]
    least = [math.inf] * len(calls)
    for turn in range(_TURNS):
        order = range(len(calls)) if turn % 2 else reversed(range(len(calls)))
        for i in order:
            least[i] = min(least[i], _block_ms(calls[i], numbers[i]))
    return least


def _block_ms(call: Callable[[], object], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return 1e3 * (time.perf_counter() - start) / number
