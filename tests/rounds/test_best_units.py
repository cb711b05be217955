"""Keeping so many units of each group, the best by a criterion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.criterion import FilterNorm, GeometricMedian, KMeans, Magnitude, NormScale, Random
from lightning_prune.pattern import Channel
from lightning_prune.pruning.unit_targets import units_of
from lightning_prune.rounds.best_units import choose, keep_best, named
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets

from .conftest import Net

PATTERN = Channel(example_inputs=torch.randn(2, 1, 8, 8))
CRITERIA = [Magnitude(), FilterNorm(1), FilterNorm(2), GeometricMedian(), KMeans(), Random()]


def kept(net: nn.Module, name: str) -> list[int]:
    weight: Any = dict(net.named_parameters())[name]
    return weight.detach().flatten(1).any(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: type(criterion).__name__)
def test_keeps_exactly_so_many_units_of_each_group(criterion: Any) -> None:
    torch.manual_seed(0)
    net = Net()
    numbers = {"first.weight": 7, "left.weight": 1, "hidden.weight": 13}
    keep_best(net, units_of(net, PATTERN, Targets()), numbers, criterion, PATTERN)
    assert {name: len(kept(net, name)) for name in numbers} == numbers
    assert kept(net, "left.weight") == kept(net, "right.weight")
    shrunk = shrink(net, PATTERN.example_inputs)
    assert {group.name: group.after for group in shrunk.report.groups} == numbers


def test_keeps_the_best_and_leaves_other_groups_alone() -> None:
    net = Net()
    with torch.no_grad():
        net.hidden.weight.copy_(torch.arange(20.0)[:, None].flip(0).expand(20, 192) + 1)
    before = net.first.weight.clone()
    keep_best(net, units_of(net, PATTERN, Targets()), {"hidden.weight": 4}, Magnitude(), PATTERN)
    assert kept(net, "hidden.weight") == [0, 1, 2, 3]
    assert torch.equal(net.first.weight, before)
    assert not hasattr(net.hidden, "weight_mask")


def test_of_equal_units_the_first_stay() -> None:
    net = Net()
    with torch.no_grad():
        net.hidden.weight.fill_(1.0)
    keep_best(net, units_of(net, PATTERN, Targets()), {"hidden.weight": 3}, Magnitude(), PATTERN)
    assert kept(net, "hidden.weight") == [0, 1, 2]


def test_the_norm_behind_decides_where_the_criterion_asks_for_it() -> None:
    net = Net()
    with torch.no_grad():
        net.norm.weight.copy_(torch.tensor([0.1, 0.9, 0.1, 0.8, 0.1, 0.1, 0.1, 0.7, 0.1, 0.1]))
    targets = Targets(include=("first.weight",))
    keep_best(net, units_of(net, PATTERN, targets), {"first.weight": 3}, NormScale(), PATTERN)
    assert kept(net, "first.weight") == [1, 3, 7]


def test_k_means_is_told_each_groups_own_share() -> None:
    """Of 20 filters in 3 clusters the 3 nearest to the means stay, though the other groups keep all theirs."""
    torch.manual_seed(0)
    net = Net()
    centers = torch.randn(3, 192) * 10
    with torch.no_grad():
        net.hidden.weight.copy_(centers[torch.arange(20) % 3] + 0.01 * torch.randn(20, 192))
    keep_best(net, units_of(net, PATTERN, Targets()), {"hidden.weight": 3}, KMeans(), PATTERN)
    assert {i % 3 for i in kept(net, "hidden.weight")} == {0, 1, 2}


def test_random_differs_by_step_and_repeats_itself() -> None:
    def drawn(step: int) -> list[int]:
        net = Net()
        keep_best(net, units_of(net, PATTERN, Targets()), {"hidden.weight": 5}, Random(seed=1), PATTERN, step)
        return kept(net, "hidden.weight")

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_score_that_is_not_finite_changes_nothing() -> None:
    net = Net()
    with torch.no_grad():
        net.hidden.weight[0, 0] = float("nan")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"hidden\.weight"):
        keep_best(net, units_of(net, PATTERN, Targets()), {"hidden.weight": 4}, Magnitude(), PATTERN)
    assert all(torch.equal(value, before[name]) or name == "hidden.weight" for name, value in net.state_dict().items())
    assert not hasattr(net.hidden, "weight_mask")


def test_groups_of_one_name_are_told_apart() -> None:
    net = Net()
    groups = units_of(net, PATTERN, Targets()).groups
    assert list(named([groups[0], groups[0]])) == [groups[0].name, f"{groups[0].name} (2)"]
    assert list(choose(net, groups)) == ["first.weight", "left.weight", "hidden.weight"]
