"""Laws of every scope under conf/pruner/scope; what single ones compute is in tests/laws/scope."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import ideas
from tests.laws.scope.layers import SHAPES, drops, layers_of

SCOPES = pytest.mark.parametrize("scope", ideas("scope"))

RISING = st.lists(st.floats(0, 1), min_size=1, max_size=6).map(sorted)


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
