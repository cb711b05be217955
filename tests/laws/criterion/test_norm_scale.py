"""Norm scales: the absolute scale of the norm behind each output, and an error where there is none."""

import pytest
import torch
from torch import nn

from lightning_prune.criterion import NormScale, Site
from lightning_prune.pattern import Row
from tests.helpers import pruned_once
from tests.laws.criterion.weights import weight_and_grad


def test_norm_scale_is_the_absolute_scale_of_each_output() -> None:
    weight, _ = weight_and_grad((3, 2, 2))
    scores = NormScale().at(Site("w", 0, norm=torch.tensor([0.5, -2.0, 0.0])))(weight, None)
    assert scores.flatten(1).tolist() == [[0.5] * 4, [2.0] * 4, [0.0] * 4]


def test_G13_norm_scale_without_a_norm_behind_the_weight_names_it() -> None:
    with pytest.raises(ValueError, match=r"no norm layer behind '0\.weight': use a channel pattern"):
        pruned_once(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), 0.5, criterion=NormScale(), pattern=Row())
    with pytest.raises(ValueError, match="behind 'w' has 2 scales for 3 outputs"):
        NormScale().at(Site("w", 0, norm=torch.ones(2)))(torch.ones(3, 4), None)
