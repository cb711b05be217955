"""Laws of every scope under conf/pruner/scope, and the formulas of those that are there."""

from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.scope import ERK, GlobalRanking, Layer, Pool, Uniform
from tests.helpers import ideas

SCOPES = pytest.mark.parametrize("scope", ideas("scope"))
SHAPES = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6)
RISING = st.lists(st.floats(0, 1), min_size=1, max_size=6).map(sorted)


def layers_of(shapes: list[tuple[int, ...]], pruned: dict[str, int] | None = None) -> list[Layer]:
    """Return layers of these shapes, named by their place."""
    gone = pruned or {}
    return [Layer(f"layer{i}", shape, prod(shape), gone.get(f"layer{i}", 0)) for i, shape in enumerate(shapes)]


def drops(pools: Any) -> dict[tuple[str, ...], int]:
    return {pool.names: pool.drop for pool in pools}


@SCOPES
@given(shapes=SHAPES, sparsity=st.floats(0, 1))
def test_G3_pools_share_the_layers_out_and_can_be_met(
    scope: Any, shapes: list[tuple[int, ...]], sparsity: float
) -> None:
    layers = layers_of(shapes)
    pools = scope(layers, sparsity)
    assert sorted(name for pool in pools for name in pool.names) == [layer.name for layer in layers]
    size = {layer.name: layer.size for layer in layers}
    for pool in pools:
        assert type(pool.drop) is int
        assert 0 <= pool.drop <= sum(size[name] for name in pool.names)
        assert 0.0 <= pool.sparsity <= 1.0
        assert abs(pool.sparsity * sum(size[name] for name in pool.names) - pool.drop) <= 1.0
    total = sum(size.values())
    assert abs(sum(pool.drop for pool in pools) - sparsity * total) <= 0.5 * len(pools) + 1e-6


@SCOPES
@given(shapes=SHAPES)
def test_G3_nothing_and_everything(scope: Any, shapes: list[tuple[int, ...]]) -> None:
    layers = layers_of(shapes)
    assert sum(pool.drop for pool in scope(layers, 0.0)) == 0
    assert sum(pool.drop for pool in scope(layers, 1.0)) == sum(layer.size for layer in layers)


@SCOPES
@given(shapes=SHAPES, sparsities=RISING)
def test_G5_a_rising_schedule_takes_ever_more_of_every_pool(
    scope: Any, shapes: list[tuple[int, ...]], sparsities: list[float]
) -> None:
    pruned: dict[str, int] = {}
    before: dict[tuple[str, ...], int] = {}
    for sparsity in sparsities:
        now = drops(scope(layers_of(shapes, pruned), sparsity))
        for names, drop in now.items():
            assert drop >= before.get(names, 0)
            if len(names) == 1:
                assert drop >= pruned.get(names[0], 0)
                pruned[names[0]] = drop
        before = now


@SCOPES
@given(shapes=SHAPES, sparsity=st.floats(0, 1), data=st.data())
def test_G5_what_is_gone_for_good_is_counted_even_if_uneven(
    scope: Any, shapes: list[tuple[int, ...]], sparsity: float, data: st.DataObject
) -> None:
    pruned = {layer.name: data.draw(st.integers(0, layer.size), layer.name) for layer in layers_of(shapes)}
    for pool in scope(layers_of(shapes, pruned), sparsity):
        assert 0 <= pool.drop <= sum(layer.size for layer in layers_of(shapes) if layer.name in pool.names)


@pytest.mark.parametrize("scope", [GlobalRanking(), ERK()])
@given(shapes=SHAPES, sparsity=st.floats(0, 1))
def test_G3_the_total_is_exact(scope: Any, shapes: list[tuple[int, ...]], sparsity: float) -> None:
    layers = layers_of(shapes)
    assert sum(pool.drop for pool in scope(layers, sparsity)) == round(sparsity * sum(layer.size for layer in layers))


@given(shapes=SHAPES, sparsity=st.floats(0, 1))
def test_G3_uniform_is_exact_in_every_layer(shapes: list[tuple[int, ...]], sparsity: float) -> None:
    layers = layers_of(shapes)
    assert Uniform()(layers, sparsity) == [
        Pool((layer.name,), round(sparsity * layer.size), sparsity) for layer in layers
    ]


@given(shapes=SHAPES, sparsity=st.floats(0, 1))
def test_erk_keeps_in_proportion_to_the_sum_of_dimensions(shapes: list[tuple[int, ...]], sparsity: float) -> None:
    layers = layers_of(shapes)
    kept = {p.names[0]: layer.size - p.drop for p, layer in zip(ERK()(layers, sparsity), layers, strict=True)}
    budget = sum(layer.size for layer in layers) - round(sparsity * sum(layer.size for layer in layers))
    # The factor by bisection: how much is kept rises with it, from nothing to everything.
    low, high = 0.0, float(max(layer.size for layer in layers))
    for _ in range(200):
        factor = (low + high) / 2
        whole = sum(min(layer.size, factor * sum(layer.shape)) for layer in layers)
        low, high = (factor, high) if whole < budget else (low, factor)
    for layer in layers:
        assert abs(kept[layer.name] - min(layer.size, high * sum(layer.shape))) <= 1 + 1e-6


def test_erk_by_hand() -> None:
    layers = layers_of([(100, 100), (10, 10)])  # sums 200 and 20; sizes 10,000 and 100
    assert drops(ERK()(layers, 0.9)) == {("layer0",): 10_000 - 918, ("layer1",): 100 - 92}
    assert drops(ERK()(layers, 0.5)) == {("layer0",): 5050, ("layer1",): 0}, "a small layer stays dense"


def test_erk_makes_up_for_millions_without_counting_them_one_by_one() -> None:
    shape = (30_000, 30_000)
    layers = layers_of([shape, shape, shape], {"layer0": 890_000_000})
    found = drops(ERK()(layers, 0.5))
    assert found[("layer0",)] == 890_000_000
    assert sum(found.values()) == round(0.5 * 2_700_000_000)
    assert abs(found[("layer1",)] - found[("layer2",)]) <= 1


def test_erk_leaves_the_others_to_make_up_for_what_is_gone() -> None:
    layers = layers_of([(20, 20), (20, 20)], {"layer0": 390})
    assert drops(ERK()(layers, 0.9)) == {("layer0",): 390, ("layer1",): 330}
    assert drops(ERK()(layers, 0.1)) == {("layer0",): 390, ("layer1",): 0}
