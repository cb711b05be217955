"""How much each layer gives up, so that all together give up what is asked for at the least rise of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Curve:
    """The loss against what one layer gives up, alone.

    Args:
        name: of the layer.
        size: how many weights, or units, it has.
        points: (how many of them are gone, the loss then), ascending from (0, the loss as it is).
        step: how many go at a time.

    Raises:
        ValueError: the points do not rise from none gone, or go past the size.
    """

    name: str
    size: int
    points: tuple[tuple[int, float], ...]
    step: int = 1

    def __post_init__(self) -> None:
        counts = [gone for gone, _ in self.points]
        if not counts or counts[0] != 0 or counts[-1] > self.size or any(a >= b for a, b in pairwise(counts)):
            raise ValueError(f"{self.name}: points must rise from 0 to at most {self.size}, and are at {counts}")

    def at(self, gone: int) -> float:
        """Return the loss with so many gone: between two points, on the line through them."""
        for (low, before), (high, after) in pairwise(self.points):
            if gone <= high:
                return before + (after - before) * (gone - low) / (high - low)
        return self.points[-1][1]

    @property
    def corners(self) -> list[tuple[int, float]]:
        """The points of the lower convex hull: between them the loss never rises faster than behind them."""
        found: list[tuple[int, float]] = []
        for point in self.points:
            while len(found) > 1 and _rise(found[-2], found[-1]) >= _rise(found[-1], point):
                found.pop()
            found.append(point)
        return found


def least_loss(curves: Sequence[Curve], zeros: Callable[[Sequence[int]], int], goal: int) -> list[int]:
    """Return how much each layer gives up.

    Greedy: the next corner of the layer whose loss rises least for each weight that becomes zero, again and again; the
    last one goes only as far as the goal is away. Where every curve is convex and each gone weight is one zero, no
    other choice has a smaller sum of the curves' rises; else none is smaller by more than the last layer's curve lies
    above its hull there. The loss of all layers pruned together is another matter: it is in no curve.

    Args:
        curves: of the layers.
        zeros: from how much each layer gives up to how many weights are zero; rising in each.
        goal: how many are to be zero. It is met exactly where a step is a weight, else as nearly as the last layer's
            steps allow.

    Raises:
        ValueError: all that was measured is not enough.
    """
    gone = [0] * len(curves)
    ways = [curve.corners for curve in curves]
    while zeros(gone) < goal:
        next_ = min(
            (index for index, way in enumerate(ways) if len(way) > 1),
            key=lambda index: _price(gone, index, ways[index], zeros),
            default=None,
        )
        if next_ is None:
            raise ValueError(f"{goal:,} are to be zero, and all that was measured comes to {zeros(gone):,}")
        corner = ways[next_][1][0]
        if zeros(_with(gone, next_, corner)) > goal:
            return _with(gone, next_, _nearest(gone, next_, corner, curves[next_].step, zeros, goal))
        gone[next_] = corner
        del ways[next_][0]
    return gone


def _price(
    gone: Sequence[int], index: int, way: Sequence[tuple[int, float]], zeros: Callable[[Sequence[int]], int]
) -> float:
    """Return what the loss rises by for each new zero on the way to a layer's next corner."""
    (_, before), (corner, after) = way[:2]
    return (after - before) / max(1, zeros(_with(gone, index, corner)) - zeros(gone))


def _nearest(
    gone: Sequence[int], index: int, most: int, step: int, zeros: Callable[[Sequence[int]], int], goal: int
) -> int:
    """Return with how much of one layer gone the zeros come nearest to the goal; of equals the less."""
    low, high = 0, -(-(most - gone[index]) // step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if zeros(_with(gone, index, gone[index] + middle * step)) <= goal else (low, middle)
    found = [min(most, gone[index] + steps * step) for steps in (low, high)]
    return min(found, key=lambda count: abs(zeros(_with(gone, index, count)) - goal))


def _with(gone: Sequence[int], index: int, count: int) -> list[int]:
    return [count if i == index else other for i, other in enumerate(gone)]


def _rise(one: tuple[int, float], other: tuple[int, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
