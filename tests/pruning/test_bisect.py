"""The least sparsity at which a cost is no more than asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lightning_prune.pruning.bisect import least_sparsity

COSTS: dict[str, Callable[[float], float]] = {
    "a line": lambda s: 1 - s,
    "a square": lambda s: (1 - s) ** 2,
    "whole units": lambda s: 1 - int(8 * s) / 8,
    "one that does not fall below a tenth": lambda s: max(0.1, 1 - s),
}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("at_most", [0.9, 0.5, 0.26])
def test_it_is_met_and_a_little_less_does_not_meet_it(name: str, at_most: float) -> None:
    cost = COSTS[name]
    found = least_sparsity(cost, at_most, 1e-4)
    assert found is not None
    assert cost(found) <= at_most < cost(found - 1.1e-4)


def test_what_costs_no_more_already_loses_nothing() -> None:
    assert least_sparsity(lambda s: 0.4 - 0.1 * s, 0.5) == 0.0


def test_what_cannot_be_met_is_none() -> None:
    assert least_sparsity(COSTS["one that does not fall below a tenth"], 0.05) is None


def test_a_cost_that_rises_in_between_is_met_all_the_same() -> None:
    def cost(s: float) -> float:
        return 0.9 if 0.55 < s < 0.6 else 1 - s

    found = least_sparsity(cost, 0.42)
    assert found is not None
    assert cost(found) <= 0.42
