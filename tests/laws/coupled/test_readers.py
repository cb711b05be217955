"""`readers=True`: the weights that read a unit score it too, those that are left whole as well."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.criterion import FilterNorm, GeometricMedian, KMeans, NormScale
from lightning_prune.learned import LearnedMasks
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.rounds import PruningRounds
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets
from tests.helpers import pruned_once
from tests.laws.coupled.nets import Traced, net


def test_readers_tell_apart_what_a_norm_has_made_equal() -> None:
    """Behind BatchNorm a filter's size changes nothing; what the next layer makes of its channel does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8, eps=0.0), nn.ReLU(), nn.Linear(8, 2))
    filters, readings = model.get_parameter("0.weight"), model.get_parameter("3.weight")
    with torch.no_grad():
        filters.mul_(torch.logspace(0, 0.01, 8)[:, None] / filters.abs().mean(1, keepdim=True))
        readings.mul_(torch.logspace(0, -3, 8) / readings.abs().mean(0))
    for readers, kept in ((False, [4, 5, 6, 7]), (True, [0, 1, 2, 3])):
        tried = copy.deepcopy(model)
        example = torch.zeros(2, 4)
        pruner = pruned_once(tried, 0.5, pattern=Channel(readers=readers, example_inputs=example))
        assert pruner.masks["0.weight"].mask.any(1).nonzero().flatten().tolist() == kept


def test_readers_that_are_left_whole_score_units_as_well() -> None:
    model = net("perceptron")
    rules = Targets(exclude=(r"^5\.",))
    with torch.no_grad():
        model[5].weight[:, 0] = 100.0
        model[3].weight[0] = 1e-6
    for readers in (False, True):
        tried = copy.deepcopy(model)
        pruner = pruned_once(tried, 0.5, pattern=Traced("perceptron", readers=readers), targets=rules)
        assert bool(pruner.masks["3.weight"].mask[0].any()) is readers


@pytest.mark.parametrize("criterion", [FilterNorm(2), GeometricMedian(), KMeans(), NormScale()], ids=repr)
def test_G13_readers_with_a_criterion_of_whole_outputs(criterion: Any) -> None:
    with pytest.raises(ValueError, match="readers=True has no effect with"):
        Pruner(OneShot(0.5, 0), criterion, Channel(readers=True))
    with pytest.raises(ValueError, match="readers=True has no effect with"):
        PruningRounds(criterion=criterion, pattern=Channel(readers=True))
    with pytest.raises(ValueError, match="learned masks have no scores"):
        LearnedMasks(pattern=Channel(readers=True))
