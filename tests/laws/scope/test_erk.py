"""ERK keeps in proportion to the sum of a layer's dimensions, and the others make up for what is gone."""

from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.scope import ERK
from tests.laws.scope.layers import SHAPES, drops, layers_of


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
