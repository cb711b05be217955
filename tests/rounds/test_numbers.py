"""How many units each round keeps, by factor, bins and schedule, and in which words it ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.pattern import Channel
from lightning_prune.rounds import PruningRounds
from lightning_prune.targets import Targets
from lightning_prune.tasks.classifier import Classifier

from .conftest import ADDED, FIRST, HIDDEN


@given(units=st.integers(1, 4096), percent=st.integers(1, 100))
def test_keeps_the_ceiling_of_the_share(units: int, percent: int) -> None:
    assert PruningRounds(percent / 100).keep(units, 1) == -(-units * percent // 100)


@given(st.integers(1, 300), st.floats(0.01, 1.0), st.integers(1, 32))
def test_a_multiple_is_kept_where_there_are_as_many(units: int, factor: float, multiple: int) -> None:
    kept = PruningRounds(factor, pattern=Channel(multiple=multiple)).keep(units, 1)
    assert math.ceil(units * factor - 1e-6) <= kept <= units
    assert kept == units or kept % multiple == 0


def test_a_list_has_a_factor_for_each_round_and_the_last_holds() -> None:
    rounds = PruningRounds([0.9, 0.5])
    assert [rounds.factor_of(i) for i in (1, 2, 3)] == [0.9, 0.5, 0.5]


def test_a_schedule_is_given_the_factor_before_and_the_round() -> None:
    asked: list[tuple[float, int]] = []

    def falling(factor: float, number: int) -> float:
        asked.append((factor, number))
        return factor - 0.125

    assert PruningRounds(1.0, schedule=falling).factor_of(3) == 0.625
    assert asked == [(1.0, 1), (0.875, 2), (0.75, 3)]


def test_bins_have_factors_of_their_own_and_wider_groups_the_rounds() -> None:
    rounds = PruningRounds([0.5, 0.25], bins={32: 0.75, 16: 1.0})
    assert [rounds.keep(units, 1) for units in (8, 16, 17, 32, 33, 64)] == [8, 16, 13, 24, 17, 32]
    assert [rounds.keep(units, 2) for units in (16, 32, 64)] == [16, 24, 16]


def test_plans_units_in_the_models_order(model: Classifier) -> None:
    steps, reason = PruningRounds(0.5, maximum_rounds=2).plan(model)
    assert [list(step.items()) for step in steps] == [
        [(FIRST, 10), (ADDED, 12), (HIDDEN, 20)],
        [(FIRST, 5), (ADDED, 6), (HIDDEN, 10)],
        [(FIRST, 3), (ADDED, 3), (HIDDEN, 5)],
    ]
    assert reason == "stopped after round 2: maximum_rounds=2 is reached"


@pytest.mark.parametrize(
    ("arguments", "rounds", "words"),
    [
        ({"factor": 0.5, "maximum_rounds": 0}, 0, "maximum_rounds=0 is reached"),
        # 21 of 42 are gone after one round: that is the maximum, not more
        ({"factor": 0.5, "maximum_share": 0.5}, 2, "73.81 % of the units are gone, more than maximum_share=0.5"),
        ({"factor": 0.5, "maximum_share": 0.49}, 1, "50.00 % of the units are gone, more than maximum_share=0.49"),
        ({"factor": 0.4}, 4, "nothing is left to prune, every group is down to one unit"),
        ({"factor": [0.5, 1.0]}, 1, "nothing is left to prune, with a factor of 1 every group keeps all its units"),
        ({"factor": 0.95}, 1, "nothing is left to prune, with a factor of 0.95 every group keeps all its units"),
        ({"factor": 0.5, "bins": {20: 1.0}}, 0, "nothing is left to prune"),
    ],
)
def test_says_why_it_ends(model: Classifier, arguments: dict[str, Any], rounds: int, words: str) -> None:
    steps, reason = PruningRounds(**arguments).plan(model)
    assert reason.startswith(f"stopped after round {rounds}: {words}")
    assert len(steps) == rounds + 1


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ([], [FIRST, ADDED, HIDDEN]),
        ([0], [FIRST]),
        ([-1], [HIDDEN]),
        ([r"hidden"], [HIDDEN]),
        ([r"right"], [ADDED]),  # the other side of the sum
        ([r"first|left", 1], [FIRST, ADDED]),
        ([2, 0], [FIRST, HIDDEN]),
    ],
)
def test_layers_by_regex_or_position(model: Classifier, layers: list[str | int], names: list[str]) -> None:
    steps, _ = PruningRounds(0.5, layers=layers).plan(model)
    assert list(steps[0]) == names


def test_targets_leave_whole_what_shares_its_channels_with_an_excluded_weight(model: Classifier) -> None:
    steps, _ = PruningRounds(0.5, targets=Targets(exclude=(r"right",))).plan(model)
    assert list(steps[0]) == [FIRST, HIDDEN]


@pytest.mark.parametrize("layers", [[3], [-4], ["hiden"]])
def test_a_layer_that_is_not_there_is_an_error(model: Classifier, layers: list[str | int]) -> None:
    with pytest.raises(ValueError, match=r"no group of units; (there are 3, from 0 to 2|near matches: .*hidden)"):
        PruningRounds(0.5, layers=layers).plan(model)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"factor": 0.0}, r"factor=0.0 must be a number in \(0, 1\], the share of units to keep"),
        ({"factor": [0.5, 1.5]}, r"factor=1.5 must be"),
        ({"factor": []}, r"factor=\[\] must hold"),
        ({"factor": True}, r"factor=True must be"),
        ({"bins": {16: 0.0}}, r"bins\[16\]=0.0 must be"),
        ({"bins": {0: 0.5}}, r"bins has 0, which must be a number of units"),
        ({"factor": [0.5], "schedule": max}, r"is a schedule already"),
        ({"maximum_rounds": -1}, r"maximum_rounds=-1 must be"),
        ({"maximum_share": 1.5}, r"maximum_share=1.5 must be"),
        ({"layers": "hidden"}, r"layers='hidden' must be a list: \['hidden'\]"),
        ({"targets": Targets(sparsity={"a": 0.5})}, r"which rounds do not know: use bins"),
        ({"pattern": 3}, r"pattern=3 does not say what can be removed"),
    ],
)
def test_refuses_what_means_nothing(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PruningRounds(**arguments)


def test_a_schedule_that_leaves_the_range_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"schedule=.*<lambda> gave 0.0 for round 2"):
        PruningRounds(0.5, schedule=lambda factor, number: factor if number == 1 else 0.0).factor_of(2)
