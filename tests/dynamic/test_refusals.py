"""What cannot be gated is left whole with its reason, or refused by name before anything is changed."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import PruningCallback, Targets
from lightning_prune.dynamic import DynamicGates
from lightning_prune.schedule import AccuracyBudget, Hold
from tests.dynamic.helpers import HALF, batch, chain, gated
from tests.guarantees.helpers import RAMP, Units, bits, fit


class Twice(nn.Module):
    """A convolution with its norm that is called twice, beside one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.last, self.behind = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.norm(self.first(x)).relu()
        return self.behind(self.last(x))


class ReadBeside(Twice):
    """A convolution whose channels are read beside its norm."""

    def forward(self, x: Tensor) -> Tensor:
        made = self.first(x)
        return self.behind(self.last((made + self.norm(made)).relu()))


class OneNorm(Twice):
    """Two convolutions with one norm."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.last(self.norm(self.first(x)) + self.norm(self.other(x))))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Twice, "called 2 times in a forward of the example"),
        (ReadBeside, "its channels are read beside its norm, or normalised together"),
        (OneNorm, "its norm 'norm' is called 2 times in a forward of the example"),
    ],
)
def test_layers_that_cannot_be_gated_are_left_whole_and_named(make: Any, reason: str) -> None:
    model = make()
    gates = gated(model, batch())
    report = gates.report()
    assert [w.name for w in report.weights] == ["last.weight"]
    assert report.skipped["first.weight"] == reason
    assert reason in report.plan()
    with pytest.raises(ValueError, match=rf"include names 'first.weight', which cannot be gated \({reason}\)"):
        gated(make(), batch(), targets=Targets(include=("first.weight",)))


@pytest.mark.parametrize(
    ("place", "layer", "reason"),
    [
        (4, nn.Conv2d(8, 8, 3, padding=1, groups=8), "a depthwise convolution"),
        (4, nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()), "no norm right behind"),
        (5, nn.GroupNorm(3, 12), "its channels are read beside its norm, or normalised together"),
    ],
)
def test_other_layers_of_a_chain(place: int, layer: nn.Module, reason: str) -> None:
    model = chain()
    model[place] = layer
    if place == 4 and isinstance(layer, nn.Conv2d):
        model[5], model[8] = nn.BatchNorm2d(8), nn.Linear(8 * 16, 5)
    report = gated(model, batch()).report()
    assert [w.name for w in report.weights] == ["0.weight"]
    assert any(why.startswith(reason) for name, why in report.skipped.items() if name.startswith("4."))


def test_frozen_layers_and_those_that_no_optimizer_steps() -> None:
    model = chain()
    model[0].requires_grad_(False)
    gates = gated(model, batch())
    assert gates.report().skipped["0.weight"] == "frozen"
    model, other = chain(), DynamicGates(HALF, example_inputs=batch())
    other.attach(model, 20, trained=list(model[4].parameters()))
    assert other.report().skipped["0.weight"] == "not stepped by any optimizer"


@pytest.mark.parametrize(
    ("make", "example", "said"),
    [
        (lambda: nn.LSTM(4, 6), torch.randn(5, 2, 4), "a recurrent layer, which computes inside"),
        (
            lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)),
            torch.randn(2, 4),
            "a linear layer, which",
        ),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 5, 5), "no norm right behind"),
    ],
)
def test_models_without_a_layer_to_gate_are_refused_as_they_are(make: Any, example: Tensor, said: str) -> None:
    model = make()
    start = bits(model)
    with pytest.raises(ValueError, match=f"can be gated: that takes a convolution with a norm right behind .*{said}"):
        gated(model, example)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": 0.5}, "schedule=0.5 is no schedule"),
        ({"schedule": Hold()}, "gates make none"),
        ({"schedule": AccuracyBudget("val", drop=0.1)}, "gates make none"),
        ({"strength": -1.0}, "strength=-1.0 must be a number of at least 0"),
        ({"lr": 0.0}, "lr=0.0 must be a number above 0"),
        ({"targets": ("a",)}, "must be a Targets"),
        ({"targets": Targets(follow={"a": "b"})}, "follow"),
    ],
)
def test_arguments_out_of_range(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cast(Any, DynamicGates)(**{"schedule": HALF} | given)


def test_without_example_inputs_or_a_window_in_the_run() -> None:
    with pytest.raises(ValueError, match="no example inputs"):
        gated(chain(), None)
    model = chain()
    with pytest.raises(ValueError, match="at or past the end of the run"):
        DynamicGates(HALF, example_inputs=batch()).attach(model, 2)
    assert not any("channel_gate" in key for key in model.state_dict())


@pytest.mark.parametrize("given", [{"shrink": True}, {"rewind": 3}])
def test_the_callback_refuses_what_needs_zeros(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="does not go with dynamic gates"):
        PruningCallback(DynamicGates(RAMP), **given)


def test_a_fit_that_is_refused_leaves_the_module_as_it_was() -> None:
    model, start = Units(), bits(Units())
    with pytest.raises(ValueError, match="max_steps=0 trains nothing"):
        fit(model, PruningCallback(DynamicGates(RAMP)), max_epochs=1, max_steps=0)
    assert list(model.state_dict()) == list(start)
    both = [PruningCallback(DynamicGates(RAMP)), PruningCallback(DynamicGates(RAMP), tag="b")]
    with pytest.raises(ValueError, match=r"both gate net.1, net.4.inner.0, net.4.outer.0"):
        fit(model, *both, max_epochs=4)
    with pytest.raises(ValueError, match=r"\(shrink=True\) takes channels out of a model whose gates"):
        fit(model, PruningCallback(0.5, shrink=True, tag="c"), PruningCallback(DynamicGates(RAMP)), max_epochs=4)
    with pytest.raises(ValueError, match="can be gated"):
        fit(Units(net=nn.Linear(12, 4)), PruningCallback(DynamicGates(RAMP)), max_epochs=4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name])
