"""The two schedules that rise step by step: their formulas, the end off the grid, and windows that make no sense."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.schedule import Geometric, Polynomial


@pytest.mark.parametrize("kind", [Polynomial, Geometric])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"begin_step": 9, "end_step": 8}, "end_step=8 must not come before begin_step=9"),
        ({"begin_step": 0.9, "end_step": 0.8}, "end_step=0.8 must not come before begin_step=0.9"),
        ({"initial_sparsity": 0.95}, "initial_sparsity=0.95 must not be above final_sparsity=0.9"),
        ({"pruning_frequency": 0}, "pruning_frequency=0 must be at least 1"),
        ({"pruning_frequency": -3}, "pruning_frequency=-3"),
        ({"power": 0.0}, "power=0.0"),
        ({"power": float("inf")}, "power=inf"),
    ],
)
def test_G13_windows_that_make_no_sense(kind: type[Any], bad: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"final_sparsity": 0.9, "begin_step": 0, "end_step": 10, "pruning_frequency": 1}
    with pytest.raises(ValueError, match=message):
        kind(**{**good, **bad})


def test_G13_a_share_that_resolves_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="is step 50, before begin_step=60"):
        Polynomial(0.9, begin_step=60, end_step=0.5, pruning_frequency=1).resolve(100)


def test_G4_polynomial_against_the_reference() -> None:
    schedule = Polynomial(0.9, begin_step=10_000, end_step=100_000, pruning_frequency=100)
    assert schedule.sparsity(20_000) == pytest.approx(0.267901, abs=5e-7)
    assert schedule.sparsity(55_000) == pytest.approx(0.7875, abs=1e-12)
    assert schedule.sparsity(9_999) == 0.0
    assert Polynomial(0.8, 0, 100, 10, initial_sparsity=0.2, power=1).sparsity(50) == pytest.approx(0.5)


def test_G4_off_the_grid_the_end_is_one_update_more() -> None:
    schedule = Polynomial(0.9, begin_step=0, end_step=1000, pruning_frequency=300)
    assert {schedule.last_update(step) for step in range(2000)} == {0, 300, 600, 900, 1000}
    assert schedule.sparsity(900) == pytest.approx(0.8991)


@given(
    final=st.floats(0.01, 0.99),
    share=st.floats(0, 1),
    width=st.integers(1, 200),
    at=st.floats(0, 1),
    power=st.floats(0.2, 5),
)
def test_G4_geometric_formula(final: float, share: float, width: int, at: float, power: float) -> None:
    initial, step = share * final, round(at * width)
    p = step / width
    expected = 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** (1 - (1 - p) ** power)
    made = Geometric(final, 5, 5 + width, 1, initial_sparsity=initial, power=power)
    assert made.sparsity(5 + step) == pytest.approx(expected, abs=1e-12)


def test_G13_geometric_cannot_reach_everything() -> None:
    with pytest.raises(ValueError, match=r"final_sparsity=1\.0 cannot be reached"):
        Geometric(1.0, 0, 10, 1)
