"""What a report says of a model: zeros counted in the weights, and shares of small layers as they will be."""

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.criterion import FirstOrderDelta, NormScale, SecondOrderDelta
from lightning_prune.regularizer import Growing, NormL1
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import Uniform
from tests.helpers import mlp, pruned_once, same


def test_zeros_are_those_of_the_weights_and_not_of_the_masks() -> None:
    model = mlp()
    pruner = pruned_once(model, 0.5)
    mask, weight = pruner.masks["0.weight"].mask, model.get_parameter("0.weight")
    gone, alive = (~mask).nonzero()[0].tolist(), mask.nonzero()[:2].tolist()
    assert pruner.report().zeros == 72
    with torch.no_grad():
        for row, column in alive:
            weight[row, column] = 0.0
        assert pruner.report().zeros == 74, "zero by themselves"
        weight[gone[0], gone[1]] = 1.0
        assert pruner.report().zeros == 73, "alive under the mask"


def test_an_attach_that_fails_leaves_no_attribute() -> None:
    model = mlp()
    with pytest.raises(ValueError, match="knows of no norm layer"):
        Pruner(OneShot(0.5, 0), criterion=NormScale()).attach(model)
    with pytest.raises(ValueError, match="knows of no norm layer"):
        Pruner(OneShot(0.5, 0), regularizer=NormL1(0.1)).attach(model)
    assert not [key for module in model.modules() for key in vars(module) if key.endswith(("_mask", "_threshold"))]


def test_the_plan_shows_the_share_that_three_weights_can_have() -> None:
    pruner = Pruner(OneShot(0.5, 0), scope=Uniform())
    pruner.attach(nn.Linear(3, 1))
    assert pruner.report().weights[0].final_sparsity == 2 / 3
    assert "66.67 %" in pruner.report().plan()


@pytest.mark.parametrize("criterion", [FirstOrderDelta(), SecondOrderDelta()])
def test_looking_ahead_leaves_what_a_criterion_remembers(criterion: Any) -> None:
    kept: list[Any] = []
    for regularizer in (None, Growing(0.1)):
        model = mlp()
        pruner = Pruner(Polynomial(0.8, 0, 9, 3), criterion=criterion, regularizer=regularizer)
        pruner.attach(model)
        for step in range(10):
            with torch.no_grad():
                for number, weight in enumerate(model.parameters()):
                    weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(10 * step + number)))
            pruner.after_step(step)
        kept.append({name: (dict(w.memory), w.mask) for name, w in pruner.masks.items()})
    assert kept[0]["0.weight"][0]
    assert same(kept[0], kept[1])
