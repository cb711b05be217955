"""G30: parameters on one memory and weights under torch's own masks are refused, with both names and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lightning_prune import LearnedMasks, Pruner, Targets
from lightning_prune.criterion import Random
from lightning_prune.pattern import Channel, Element
from lightning_prune.pruning.unit_targets import units_of
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Net, fit, ramp
from tests.helpers import mlp


class Coder(nn.Module):
    """An encoder and a decoder of equal shapes turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mid, self.dec = nn.Linear(6, 8, bias=False), nn.Linear(8, 8), nn.Linear(8, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dec(self.mid(self.enc(x)).relu())


def transposed(model: Any) -> None:
    model.dec.weight = nn.Parameter(model.enc.weight.t())


def the_same(model: Any) -> None:
    model.mid = nn.Linear(6, 8, bias=False)
    model.mid.weight = nn.Parameter(model.enc.weight)


def a_row(model: Any) -> None:
    model.extra = nn.ParameterList([nn.Parameter(model.enc.weight[2:4])])


def of_a_buffer(model: Any) -> None:
    flat = torch.randn(120)
    model.enc.weight, model.dec.weight = nn.Parameter(flat[:48].view(8, 6)), nn.Parameter(flat[40:88].view(6, 8))


SHARED = [transposed, the_same, a_row, of_a_buffer]
PRUNERS: dict[str, Callable[[], Any]] = {
    "element": lambda: Pruner(OneShot(0.5, 0), criterion=Random()),
    "channel": lambda: Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=torch.zeros(2, 6))),
    "learned weights": lambda: LearnedMasks(pattern=Element()),
    "learned units": lambda: LearnedMasks(pattern=Channel(example_inputs=torch.zeros(2, 6))),
}


@pytest.mark.parametrize("share", SHARED, ids=lambda share: share.__name__)
@pytest.mark.parametrize("pruner", ["element", "learned weights"])
def test_G30_two_parameters_on_one_memory_are_refused_with_both_names(share: Any, pruner: str) -> None:
    model = Coder()
    share(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = PRUNERS[pruner]()
    with pytest.raises(ValueError, match=r"'enc\.weight' and '.*' are two parameters on one memory"):
        made.attach(model, 10)
    assert not made.attached
    assert not hasattr(model.enc, "weight_mask")
    assert not model.enc._forward_pre_hooks
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("pruner", ["channel", "learned units"])
def test_G30_units_on_one_memory_are_refused(pruner: str) -> None:
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight = nn.Parameter(model[0].weight.t())
    with pytest.raises(ValueError, match=r"'0\.weight' and '2\.weight' are two parameters on one memory"):
        PRUNERS[pruner]().attach(model, 10)


def test_G30_biases_that_go_with_units_count_too() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    model[2].bias = nn.Parameter(model[0].bias.detach())
    with pytest.raises(ValueError, match=r"'0\.bias' and '2\.bias'"):
        PRUNERS["channel"]().attach(model, 10)


def test_G30_rounds_refuse_them_too() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight = nn.Parameter(model[0].weight.t())
    with pytest.raises(ValueError, match="on one memory"):
        units_of(model, Channel(example_inputs=torch.zeros(2, 6)), Targets())


def test_G30_both_left_out_is_no_error() -> None:
    model = Coder()
    transposed(model)
    pruner = Pruner(OneShot(0.5, 0), targets=Targets(exclude=("enc", "dec")))
    pruner.attach(model)
    pruner.after_step(0)
    assert pruner.strip().zeros == 32


def test_G30_one_left_out_is_an_error() -> None:
    model = Coder()
    transposed(model)
    with pytest.raises(ValueError, match="on one memory"):
        Pruner(OneShot(0.5, 0), targets=Targets(exclude=("enc",))).attach(model)


def test_G30_parts_of_one_buffer_that_do_not_meet_are_no_error() -> None:
    """As torch lays the weights of an LSTM on a GPU; columns that take turns share no entry either."""
    flat, model = torch.randn(96), Coder()
    model.enc.weight, model.dec.weight = nn.Parameter(flat[:48].view(8, 6)), nn.Parameter(flat[48:].view(6, 8))
    Pruner(OneShot(0.5, 0)).attach(model)
    wide, model = torch.randn(8, 12), Coder()
    model.enc.weight, model.mid.weight = nn.Parameter(wide[:, ::2]), nn.Parameter(wide[:, 1::2])
    Pruner(OneShot(0.5, 0)).attach(model)


def test_G30_a_tied_parameter_is_one_and_no_error() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    pruner = Pruner(OneShot(0.5, 0), criterion=Random())
    pruner.attach(model)
    pruner.after_step(0)
    assert pruner.strip().zeros == 18 == int((model[0].weight == 0).sum())


@pytest.mark.parametrize("name", ["0", "3"])
def test_G30_masks_of_torchs_own_pruning_are_refused_with_the_remedy(name: str) -> None:
    model = mlp()
    prune.l1_unstructured(model.get_submodule(name), "weight", amount=0.5)
    remedy = rf"'{name}\.weight_orig' is masked by torch\.nn\.utils\.prune.*remove\(module, 'weight'\) on '{name}'"
    for pruner in (Pruner(OneShot(0.5, 0)), LearnedMasks(pattern=Element())):
        with pytest.raises(ValueError, match=remedy):
            pruner.attach(model, 10)
    prune.remove(model.get_submodule(name), "weight")
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    pruner.after_step(0)
    assert pruner.strip().zeros == 72


def test_G30_such_a_weight_may_be_left_out() -> None:
    model = mlp()
    prune.random_unstructured(model.get_submodule("0"), "weight", amount=0.3)
    pruner = Pruner(OneShot(0.5, 0), targets=Targets(exclude=(r"^0\.",)))
    pruner.attach(model)
    pruner.after_step(0)
    assert pruner.strip().zeros == 30


def test_G30_a_fit_refuses_both_before_training() -> None:
    model = Net()
    prune.l1_unstructured(model.net[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"remove\(module, 'weight'\) on 'net\.0'"):
        fit(model, ramp(), max_steps=20)
    shared = Net()
    shared.net[3].weight = nn.Parameter(shared.net[0].weight.view(12, 16)[:4])
    with pytest.raises(ValueError, match=r"'net\.0\.weight' and 'net\.3\.weight'"):
        fit(shared, ramp(), max_steps=20)
