"""How exactly a scope meets what is asked for: global ranking and ERK in total, uniform in every layer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.scope import ERK, GlobalRanking, Pool, Uniform
from tests.laws.scope.layers import SHAPES, layers_of


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
