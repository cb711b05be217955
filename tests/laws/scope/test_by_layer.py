"""Shares by layer: exact where the schedule asks for what they come to, in proportion before, shared out past it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_prune import Pruner, Targets
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import OneShot
from lightning_prune.scope import ByLayer
from tests.laws.scope.layers import SHAPES, drops, layers_of

SHARES = st.lists(st.floats(0, 1), min_size=6, max_size=6)


@given(shapes=SHAPES, shares=SHARES, asked=st.floats(0, 1))
def test_layers_meet_in_all_what_is_asked_for_and_each_its_own_share(
    shapes: list[tuple[int, ...]], shares: list[float], asked: float
) -> None:
    layers = layers_of(shapes)
    scope = ByLayer({layer.name: share for layer, share in zip(layers, shares, strict=False)})
    total = sum(layer.size for layer in layers)
    together = sum(scope.sparsity[layer.name] * layer.size for layer in layers) / total
    for layer, pool in zip(layers, scope(layers, together), strict=True):
        assert abs(pool.drop - scope.sparsity[layer.name] * layer.size) <= 0.5 + 1e-6
    pools = scope(layers, asked)
    assert (
        abs(sum(pool.sparsity * layer.size for pool, layer in zip(pools, layers, strict=True)) - asked * total) < 1e-6
    )
    assert all(pool.drop == round(pool.sparsity * layer.size) for pool, layer in zip(pools, layers, strict=True))


def test_by_hand() -> None:
    layers = layers_of([(10, 10), (10, 10), (10, 20)])
    scope = ByLayer({"layer0": 0.9, "layer1": 0.5})
    assert drops(scope(layers, 0.7)) == {("layer0",): 90, ("layer1",): 50, ("layer2",): 140}
    assert drops(scope(layers, 0.35)) == {("layer0",): 45, ("layer1",): 25, ("layer2",): 70}, "half of the way"
    assert drops(scope(layers, 0.85)) == {("layer0",): 95, ("layer1",): 75, ("layer2",): 170}, "half of what is left"


@pytest.mark.parametrize("wrong", [{"a": 1.5}, {"a": "0.5"}, {"a": True}, [0.5], 0.5])
def test_what_is_no_mapping_to_shares_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="sparsity"):
        ByLayer(wrong)


@pytest.mark.parametrize("pattern", [Element(), Channel()])
def test_a_name_of_no_layer_is_refused_before_training_and_leaves_the_model(pattern: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2))
    model.example_input_array = torch.zeros(2, 4)
    before = set(vars(model[0]))
    pruner = Pruner(OneShot(0.5, 0), pattern=pattern, scope=ByLayer({"0.wieght": 0.5}))
    with pytest.raises(ValueError, match=r"'0\.wieght', which is no layer .* near matches: 0\.weight"):
        pruner.attach(model, 10)
    assert set(vars(model[0])) == before
    with pytest.raises(ValueError, match="no layer that is pruned here"):
        Pruner(
            OneShot(0.5, 0), pattern=pattern, scope=ByLayer({"0.weight": 0.5}), targets=Targets(exclude=("^0",))
        ).attach(model, 10)


@pytest.mark.parametrize("pattern", [Element(), Channel()])
def test_a_pruner_takes_layers_to_their_shares(pattern: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 2))
    model.example_input_array = torch.zeros(2, 4)
    of_units = isinstance(pattern, Channel)
    # Units: 5 of 20 and 8 of 10 go; of 80, 200 and 20 weights 4*5, 200 - 15*2 and 2*8 are zero then.
    final = (20 + 170 + 16) / 300 if of_units else (20 + 160 + 10) / 300
    shares = {"0.weight": 0.25, "2.weight": 0.8} | ({} if of_units else {"4.weight": 0.5})
    pruner = Pruner(OneShot(final, 0), pattern=pattern, scope=ByLayer(shares))
    pruner.attach(model, 10)
    pruner.update(0)
    report = pruner.strip()
    zeros = [weight.zeros for weight in report.weights]
    assert zeros == ([20, 170, 16] if of_units else [20, 160, 10])
