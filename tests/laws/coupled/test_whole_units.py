"""Whole units go, to the budget, with every idea of every other noun; one step of each group stays."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.coupling.units import Group
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import HoldingSchedule, Polynomial, TurnSchedule
from lightning_prune.scope import GlobalRanking
from tests.helpers import criteria_of_weights, ideas, masks_of, pruned_once, vary
from tests.laws.coupled.nets import HEADS, NAMES, Traced, coupling, move, net
from tests.laws.coupled.units import alive_units, assert_whole_units, counted, zeros_of


def most(groups: Sequence[Group], pruner: Pruner) -> int:
    """Return how many weights are zero where each group has one unit left."""
    shapes = {weight.name: torch.Size(weight.shape) for weight in pruner.report().weights}
    return zeros_of(groups, [torch.arange(group.units) == 0 for group in groups], shapes)


@NAMES
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("criterion", criteria_of_weights())
def test_G3_G5_every_idea_prunes_whole_units_to_the_budget(name: str, scope: Any, criterion: Any) -> None:
    groups = coupling(name).groups
    if "norm" in vars(criterion) and not all(any(group.of("norm")) for group in groups):
        pytest.skip("no norms behind some units")
    for case in ideas("selection"):
        for schedule in ideas("schedule"):
            (selection,), (timing,) = case.values, schedule.values
            if isinstance(timing, TurnSchedule):  # of which tests/pruning/test_layer_by_layer.py is
                continue
            model = net(name)
            if isinstance(timing, HoldingSchedule):  # of a model that came with dead units
                pruned_once(model, 0.4, pattern=Traced(name)).strip()
            pruner = Pruner(
                vary(timing, final_sparsity=0.7, pruning_frequency=0.2, rounds=3),
                criterion,
                Traced(name),
                scope,
                selection,
            )
            pruner.attach(model, 40)
            before = masks_of(pruner)
            updates = 0
            for step in range(41):
                if not pruner.after_step(step):
                    continue
                updates += 1
                now = masks_of(pruner)
                units = assert_whole_units(groups, now)
                assert all(bool(alive.any()) for alive in units)
                assert now[HEADS[name]].any(1).all(), "the output layer keeps its rows"
                assert not any(bool((now[n] & ~before[n]).any()) for n in now)
                assert all(torch.equal(w.mask, w.parameter != 0) for w in pruner.masks.values())
                zeros, size = counted(pruner)
                goal = min(pruner.resolved_schedule.sparsity(step) * size, most(groups, pruner))
                if selection.exact:
                    rankings = 1 if isinstance(scope, GlobalRanking) else len(groups)
                    assert abs(zeros - goal) <= pruner.report().grain * rankings
                before = now
                move(model, step)
            assert updates
            report = pruner.strip()
            assert report.zeros == counted_zeros(model, report)
            assert all("mask" not in key for module in model.modules() for key in vars(module))


def counted_zeros(model: nn.Module, report: Any) -> int:
    named = dict(model.named_parameters())
    return sum(int((named[weight.name] == 0).sum()) for weight in report.weights)


@NAMES
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("multiple", [1, 4])
def test_everything_asked_for_leaves_one_step_a_group(name: str, scope: Any, multiple: int) -> None:
    pruner = pruned_once(net(name), 1.0, pattern=Traced(name, multiple), scope=scope)
    units = assert_whole_units(coupling(name).groups, masks_of(pruner))
    assert [int(alive.sum()) for alive in units] == [multiple] * len(units)
    assert pruner.report().sparsity < 1.0


@NAMES
def test_G5_reversible_units_come_back_whole(name: str) -> None:
    model = net(name)
    pruner = Pruner(Polynomial(0.5, 0, 4, 2, initial_sparsity=0.5), pattern=Traced(name), reversible=True)
    pruner.attach(model)
    pruner.after_step(0)
    before = masks_of(pruner)
    values = {n: w.ranked().clone() for n, w in pruner.masks.items()}
    group = coupling(name).groups[0]
    dead = alive_units(group, before).logical_not()
    with torch.no_grad():
        for name_of_weight in {part.name for part in group.of("out")}:
            weight = pruner.masks[name_of_weight]
            weight.parameter.mul_(1e-3)
            assert weight.dense is not None
    pruner.after_step(2)
    now = masks_of(pruner)
    units = assert_whole_units(coupling(name).groups, now)
    assert bool((units[0] & dead).any())
    for n, weight in pruner.masks.items():
        back = now[n] & ~before[n]
        assert torch.equal(weight.parameter.detach()[back], values[n][back])
