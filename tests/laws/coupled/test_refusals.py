"""What cannot be pruned is an error that names it, before anything is changed."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.criterion import FirstOrderDelta, NormScale
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets
from tests.helpers import same
from tests.laws.coupled.nets import EXAMPLE, NAMES, Traced, coupling, net, perceptron


class Whole(nn.Module):
    """All of its channels are its output."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


def frozen() -> nn.Module:
    model = perceptron()
    model[0].bias.requires_grad_(False)  # pyright: ignore
    model[3].weight.requires_grad_(False)  # pyright: ignore
    return model


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no example": (perceptron, {"pattern": Channel()}, "Sequential has no example inputs"),
    "wrong example": (perceptron, {"pattern": Channel(example_inputs=torch.zeros(3, 6))}, "Sequential could not be"),
    "nothing removable": (Whole, {}, r"Whole has no units that can be removed \(only.weight: .*output"),
    "frozen": (frozen, {}, r"no units that can be removed \(.*0.weight: tied to 0.bias, which is frozen"),
    "excluded": (
        perceptron,
        {"targets": Targets(exclude=("^0", "^3"))},
        "0.weight: excluded by '^0'".replace("^", r"\^"),
    ),
    "no norm": (perceptron, {"criterion": NormScale()}, "no norm layer behind '3.weight'"),
    "past the end": (perceptron, {"schedule": OneShot(0.5, 90)}, "at or past the end of the run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_G13_an_error_before_anything_is_changed(case: str) -> None:
    make, options, message = REFUSED[case]
    model = make()
    before = copy.deepcopy(dict(model.state_dict()))
    flags = [(p.requires_grad, id(p)) for p in model.parameters()]
    seen = [dict(vars(module)) for module in model.modules()]
    arguments: dict[str, Any] = {"schedule": OneShot(0.5, 5), "pattern": EXAMPLE} | options
    pruner = Pruner(**arguments)
    with pytest.raises(ValueError, match=message):
        pruner.attach(model, 50)
    assert not pruner.attached
    assert same(dict(model.state_dict()), before)
    assert [(p.requires_grad, id(p)) for p in model.parameters()] == flags
    assert [set(vars(m)) - set(s) for m, s in zip(model.modules(), seen, strict=True)] == [set()] * len(seen)


@NAMES
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_G24_a_score_that_is_not_finite_names_the_weight_and_changes_nothing(name: str, value: float) -> None:
    model = net(name)
    pruner = Pruner(OneShot(0.5, 1), FirstOrderDelta(0.5), Traced(name))
    pruner.attach(model)
    weight = coupling(name).groups[-1].name
    with torch.no_grad():
        model.get_parameter(weight).view(-1)[0] = value
    before = copy.deepcopy(dict(model.state_dict()))
    with pytest.raises(ValueError, match=f"score of '{weight}' is not finite"):
        pruner.after_step(1)
    assert same(dict(model.state_dict()), before)
    assert all(bool(w.mask.all()) and not w.memory for w in pruner.masks.values())
    assert pruner.last_update is None
