"""Layers are timed at several widths by a clock that counts, so that every time is known; and the model stays."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.cost import measure_latency
from lightning_prune.cost.latency_table import LayerTimes
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot
from lightning_prune.scope import Uniform
from lightning_prune.shrink import shrink
from tests.cost.counted import counted as counted
from tests.cost.counted import of_forward
from tests.laws.test_budget import NETS

LAYERS = {
    "mlp": {"0.weight": (0,), "2.weight": (0, 1), "4.weight": (1,)},
    "conv net": {"0.weight": (0,), "3.weight": (0, 1), "6.weight": (0, 1), "8.weight": (1,)},
    "residual": {
        "stem.weight": (0,),
        "body.0.weight": (0,),
        "body.2.weight": (0, 1),
        "body.4.weight": (0, 1),
        "down.0.weight": (0,),
        "down.2.weight": (0, 1),
        "head.weight": (1,),
    },
    "lstm": {"rnn.weight_ih_l0": (0,), "head.weight": (1,)},
    "transformer": {
        f"body.layers.{i}.{name}.weight".replace("in_proj.weight", "in_proj_weight"): dims
        for i in range(2)
        for name, dims in (("self_attn.in_proj", (0,)), ("linear1", (0,)), ("linear2", (1,)))
    },
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = NETS[name]
    torch.manual_seed(0)
    return make().eval(), torch.randn(shape)


SLOW = [pytest.param(name, marks=[] if name in ("mlp", "lstm") else [pytest.mark.slow]) for name in NETS]


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", SLOW)
def test_layers_add_up_to_the_forward_of_a_smaller_model(name: str) -> None:
    model, x = made(name)
    table = measure_latency(model, x)
    assert {layer.weight: layer.dims for layer in table.layers} == LAYERS[name]
    assert table.ms == pytest.approx(of_forward(model, x))
    for share in (0.3, 0.5, 0.7):
        smaller = copy.deepcopy(model)
        pruner = Pruner(OneShot(share, 0), pattern=Channel(example_inputs=x), scope=Uniform())
        pruner.attach(smaller)
        pruner.after_step(0)
        pruner.strip()
        left = shrink(smaller, x).model
        shapes = {key: tuple(parameter.shape) for key, parameter in left.named_parameters()}
        whole = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
        saved = sum(layer(whole[layer.weight]) - layer(shapes[layer.weight]) for layer in table.layers)
        assert table.ms - saved == pytest.approx(of_forward(left, x), rel=0.04)


@pytest.mark.usefixtures("counted")
def test_the_whole_grid_is_that_of_the_layer_alone() -> None:
    """Two layers that look alike in their sizes, but not in what they read, are not taken for the same."""
    model, x = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)), torch.ones(5, 8)
    first, *middle, last = measure_latency(model, x).layers

    def ms(layer: LayerTimes, left: tuple[int, int]) -> float:
        rows, columns = left
        return 1e-3 * (5 * (rows + columns) + rows * columns + rows)

    for layer in middle:
        assert layer.lengths == ((1, 3, 6, 9, 12), (1, 3, 6, 9, 12))
        for left in ((1, 1), (6, 12), (12, 3), (9, 9)):
            assert layer(left) == pytest.approx(ms(layer, left))
    assert first((6, 8)) == pytest.approx(ms(first, (6, 8)))
    assert last((3, 9)) == pytest.approx(ms(last, (3, 9)))


@pytest.mark.usefixtures("counted")
def test_a_larger_batch_and_threads_are_measured_and_said() -> None:
    model, x = made("mlp")
    threads = torch.get_num_threads()
    one, other = measure_latency(model, x), measure_latency(model, x, batch=7, threads=threads + 1)
    assert (one.batch, other.batch) == (2, 7)
    assert (one.threads, other.threads) == (threads, threads + 1)
    assert other.ms == pytest.approx(of_forward(model, torch.ones(7, 64)))
    assert torch.get_num_threads() == threads
    assert "batch of 7" in str(other)


@pytest.mark.parametrize("name", ["lstm", pytest.param("residual", marks=pytest.mark.slow)])
def test_the_model_comes_out_as_it_was(name: str) -> None:
    model, x = made(name)
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, states = copy.deepcopy(model.state_dict()), (torch.get_rng_state(), random.getstate())
    ids = [id(parameter) for parameter in model.parameters()]
    measure_latency(model, x)
    assert [id(parameter) for parameter in model.parameters()] == ids
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is not None and bool((p.grad == 1).all()) and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert not any(vars(module)["_forward_hooks"] for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


class Bare(nn.Module):
    """Multiplies by parameters of its own, beside a layer that no unit goes from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 6))
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x @ self.first.T @ self.second.T)


class Fussy(nn.Module):
    """Fails where fewer than three channels are left."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.shape[1] < 3:
            raise RuntimeError("too narrow")
        return self.last(x)


def test_what_cannot_be_measured_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Sequential has no example inputs"):
        measure_latency(made("mlp")[0])
    with pytest.raises(ValueError, match="no layer of Linear that can lose units"):
        measure_latency(nn.Linear(3, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match="no layer of Bare that can lose units"):
        measure_latency(Bare(), torch.ones(1, 4))
    with pytest.raises(ValueError, match="Fussy cannot be timed with 1 of its 12 units: RuntimeError: too narrow"):
        measure_latency(Fussy(), torch.ones(1, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_a_real_clock_gives_a_table_that_adds_up(name: str) -> None:
    """No time is asserted: the layers of a table are those of the net, none is faster where wider, and it can halve."""
    model, x = made(name)
    table = measure_latency(model, x, threads=1)
    assert {layer.weight: layer.dims for layer in table.layers} == LAYERS[name]
    assert sum(layer.ms[-1] for layer in table.layers) == pytest.approx(table.ms, rel=1e-6)
    again: Any = type(table).from_dict(table.to_dict())
    assert again == table
