"""The sparsities of least loss, beside all there are."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.pruning.least_loss import Curve, least_loss


@st.composite
def curves(draw: st.DrawFn, convex: bool) -> list[Curve]:
    found: list[Curve] = []
    for number in range(draw(st.integers(1, 3))):
        counts = sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=4)))
        rises = draw(st.lists(st.integers(-2, 20), min_size=len(counts), max_size=len(counts)))
        points = [(0, 1.0)]
        for count, rise in zip(counts, sorted(rises) if convex else rises, strict=True):
            points.append((count, points[-1][1] + rise * (count - points[-1][0])))
        found.append(Curve(f"layer{number}", draw(st.integers(counts[-1], 12)), tuple(points)))
    return found


def cheapest(curves: list[Curve], goal: int) -> float:
    """Return the least summed loss of all ways to share the goal out."""
    every = product(*(range(curve.points[-1][0] + 1) for curve in curves))
    return min(loss(curves, gone) for gone in every if sum(gone) == goal)


def loss(curves: list[Curve], gone: tuple[int, ...] | list[int]) -> float:
    return sum(curve.at(count) for curve, count in zip(curves, gone, strict=True))


@given(table=curves(convex=True), data=st.data())
def test_no_other_choice_is_better_where_losses_rise_ever_faster(table: list[Curve], data: st.DataObject) -> None:
    goal = data.draw(st.integers(0, sum(curve.points[-1][0] for curve in table)))
    gone = least_loss(table, sum, goal)
    assert sum(gone) == goal
    assert loss(table, gone) == pytest.approx(cheapest(table, goal), abs=1e-9)


@given(table=curves(convex=False), data=st.data())
def test_else_it_is_within_the_way_to_the_next_corner(table: list[Curve], data: st.DataObject) -> None:
    goal = data.draw(st.integers(0, sum(curve.points[-1][0] for curve in table)))
    gone = least_loss(table, sum, goal)
    assert sum(gone) == goal
    assert all(0 <= count <= curve.points[-1][0] for curve, count in zip(table, gone, strict=True))
    on_the_way = [gone for curve, gone in zip(table, gone, strict=True) if gone not in dict(curve.corners)]
    assert len(on_the_way) <= 1, "one layer at most stops on its way"
    above = sum(curve.at(count) - hull(curve, count) for curve, count in zip(table, gone, strict=True))
    assert loss(table, gone) - above <= cheapest(table, goal) + 1e-9


def hull(curve: Curve, gone: int) -> float:
    return Curve(curve.name, curve.size, tuple(curve.corners)).at(gone)


def test_a_layer_that_costs_nothing_goes_first_and_one_that_gains_before_it() -> None:
    dear, free, gain = (
        Curve(name, 10, ((0, 1.0), (5, at_five), (10, at_ten)))
        for name, at_five, at_ten in (("dear", 2.0, 5.0), ("free", 1.0, 1.0), ("gain", 0.9, 1.5))
    )
    assert least_loss([dear, free, gain], sum, 5) == [0, 0, 5]
    assert least_loss([dear, free, gain], sum, 12) == [0, 7, 5]
    assert least_loss([dear, free, gain], sum, 18) == [0, 10, 8]
    assert least_loss([dear, free, gain], sum, 30) == [10, 10, 10]


def test_zeros_that_layers_share_are_counted_once_and_steps_are_kept() -> None:
    first, second = (
        Curve(name, 8, ((0, 0.0), (4, rise), (8, 9 * rise)), step=2) for name, rise in (("a", 1.0), ("b", 1.1))
    )

    def zeros(gone: object) -> int:  # 8 units of 4 weights, read by 8 units, read by 3
        a, b = gone  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        return int(4 * a + 64 - (8 - a) * (8 - b) + 3 * b)  # pyright: ignore[reportUnknownArgumentType]

    every = [(a, b) for a, b in product(range(0, 9, 2), repeat=2)]
    assert least_loss([first, second], zeros, 70) in [[4, 2], [4, 4]]
    for goal in range(0, zeros((8, 8)) + 1, 7):
        gone = least_loss([first, second], zeros, goal)
        assert all(count % 2 == 0 for count in gone)
        near = min(abs(zeros(other) - goal) for other in every)
        assert abs(zeros(gone) - goal) <= near + 12 + 16, "as near as the last layer's steps allow"


def test_what_was_not_measured_is_not_planned() -> None:
    with pytest.raises(ValueError, match="9 are to be zero, and all that was measured comes to 8"):
        least_loss([Curve("a", 10, ((0, 1.0), (8, 2.0)))], sum, 9)


@pytest.mark.parametrize("points", [(), ((1, 1.0),), ((0, 1.0), (2, 1.0), (2, 3.0)), ((0, 1.0), (11, 2.0))])
def test_points_that_do_not_rise_from_nothing_are_refused(points: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="points must rise from 0 to at most 10"):
        Curve("a", 10, points)
