"""The floor under global ranking: a share of each layer, one weight at least, never more than is to stay in all."""

from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.scope import ERK, GlobalRanking
from tests.laws.scope.layers import SHAPES, layers_of


@given(shapes=SHAPES, sparsity=st.floats(0, 1), floor=st.floats(1e-6, 0.99))
def test_a_floor_is_a_share_of_each_layer_that_leaves_the_count_alone(
    shapes: list[tuple[int, ...]], sparsity: float, floor: float
) -> None:
    layers = layers_of(shapes)
    total = sum(layer.size for layer in layers)
    (pool,) = GlobalRanking(floor)(layers, sparsity)
    assert pool.drop == round(sparsity * total)
    whole = [max(1, ceil(floor * layer.size - 1e-9)) for layer in layers]
    keep = total - pool.drop
    if sum(whole) <= keep:
        assert list(pool.least) == whole
    elif len(layers) > keep:
        assert not any(pool.least)
    else:
        assert min(pool.least) >= 1
        assert keep - len(layers) < sum(pool.least) <= keep
        assert all(few <= most for few, most in zip(pool.least, whole, strict=True))


def test_by_hand() -> None:
    layers = layers_of([(300, 784), (100, 300), (10, 100)])
    assert GlobalRanking()(layers, 0.99)[0].least == (236, 30, 1)
    assert GlobalRanking(0.01)(layers, 0.5)[0].least == (2352, 300, 10)
    # 266 stay where 2,662 are the floor: a tenth of it, one weight of each layer first
    assert GlobalRanking(0.01)(layers, 0.999)[0].least == (233, 30, 1)
    assert GlobalRanking()(layers, 1.0)[0].least == ()


@pytest.mark.parametrize("none", [0, 0.0, None])
def test_none(none: Any) -> None:
    (pool,) = GlobalRanking(none)(layers_of([(3, 4), (5,)]), 0.5)
    assert not pool.least


@pytest.mark.parametrize("wrong", [-0.1, 1, 1.5, True, "0.1", float("nan")])
def test_a_share_out_of_range_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="floor="):
        GlobalRanking(wrong)


@given(shapes=SHAPES, sparsity=st.floats(0, 1))
def test_erk_leaves_one_weight_of_each_layer_where_that_many_stay(
    shapes: list[tuple[int, ...]], sparsity: float
) -> None:
    layers = layers_of(shapes)
    pools = ERK()(layers, sparsity)
    if sum(layer.size for layer in layers) - sum(pool.drop for pool in pools) >= len(layers):
        assert all(pool.drop < layer.size for pool, layer in zip(pools, layers, strict=True))
