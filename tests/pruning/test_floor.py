"""The floor in the selection: the best units of a layer stay, the others of the pool give as much more."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.pruning import floor
from lightning_prune.selection import Exact, Histogram, Units
from tests.helpers import FLOATS


def of(*scores: Sequence[float], **options: Any) -> list[list[Units]]:
    return [[Units(f"layer{i}", torch.tensor(s), **options)] for i, s in enumerate(scores)]


def select(layers: list[list[Units]], least: Sequence[int], drop: int, selection: Any = Exact()) -> list[list[int]]:
    size = sum(units.values.numel() for layer in layers for units in layer)
    keeps, _ = floor.select(selection, layers, least, drop, drop / size)
    return [keep.int().tolist() for keep in keeps]


def test_the_best_stays_and_the_others_give_more() -> None:
    layers = of([0.1, 0.3, 0.2], [4.0, 5.0, 6.0, 7.0])
    assert select(layers, (), 4) == [[0, 0, 0], [0, 1, 1, 1]]
    assert select(layers, (1, 1), 4) == [[0, 1, 0], [0, 0, 1, 1]]
    assert select(layers, (2, 1), 4) == [[0, 1, 1], [0, 0, 0, 1]]


def test_of_equal_ones_the_first_stays() -> None:
    assert select(of([0.0, 0.0, 0.0], [4.0, 5.0, 6.0]), (1, 1), 4) == [[1, 0, 0], [0, 0, 1]]


def test_a_layer_that_falls_short_by_giving_more_is_seen_to_as_well() -> None:
    layers = of([0.1, 0.2, 0.3, 0.4], [1.0, 1.1], [2.0, 2.1, 2.2])
    assert select(layers, (), 6) == [[0, 0, 0, 0], [0, 0], [1, 1, 1]]
    assert select(layers, (2, 1, 0), 6) == [[0, 0, 1, 1], [0, 1], [0, 0, 0]]
    assert select(layers, (0, 1, 0), 5) == [[0, 0, 0, 0], [0, 1], [1, 1, 1]]


def test_where_no_more_are_to_stay_than_the_floor_asks_for_the_best_of_those_do() -> None:
    assert select(of([0.1, 0.3], [4.0, 5.0], [2.0, 1.0]), (1, 1, 1), 4) == [[0, 0], [0, 1], [1, 0]]
    assert select(of([0.1, 0.3], [4.0, 5.0]), (1, 1), 4) == [[0, 0], [0, 0]]


def test_the_dead_stay_dead() -> None:
    layers = of([0.1, 0.3, 0.2], [4.0, 5.0, 6.0])
    layers[0][0] = Units("layer0", layers[0][0].values, alive=torch.tensor([True, False, False]))
    assert select(layers, (2, 1), 4) == [[1, 0, 0], [0, 0, 1]]


def test_an_approximate_selection_gets_its_best_back() -> None:
    layers = of([0.1, 0.3, 0.2], [4.0, 5.0, 6.0, 7.0])
    plain, held = select(layers, (), 4, Histogram(8)), select(layers, (1, 1), 4, Histogram(8))
    assert plain[0] == [0, 0, 0]
    assert held == [[0, 1, 0], plain[1]]


def test_units_of_several_weights() -> None:
    layers = of([0.1, 0.3, 0.2], [4.0, 5.0, 6.0], weights=4)
    assert in_weights(layers, (5, 1), 12) == [[0, 1, 1], [0, 0, 1]]
    layers = of([0.1, 0.2, 0.3], [4.0, 5.0, 6.0], weights=torch.tensor([4, 4, 2]))
    assert in_weights(layers, (3, 1), 12) == [[0, 1, 1], [0, 0, 1]]
    assert in_weights(layers, (2, 1), 12) == [[0, 0, 1], [0, 1, 1]]


def in_weights(layers: list[list[Units]], least: Sequence[int], drop: int) -> list[list[int]]:
    keeps, _ = floor.select(Exact(), layers, least, drop, 0.5)
    return [keep.int().tolist() for keep in keeps]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(data=st.data())
def test_it_is_a_plain_sort_of_the_rest(dtype: torch.dtype, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    values = [torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), dtype=dtype) for n in sizes]
    least = [data.draw(st.integers(0, n)) for n in sizes]
    drop = data.draw(st.integers(0, sum(sizes) - sum(least)))
    layers = [[Units(f"layer{i}", v)] for i, v in enumerate(values)]
    keeps, _ = floor.select(Exact(), layers, least, drop, drop / sum(sizes))
    assert sum(int((~keep).sum()) for keep in keeps) == drop
    assert all(int(keep.sum()) >= few for keep, few in zip(keeps, least, strict=True))
    for value, keep in zip(values, keeps, strict=True):  # within a layer the best stay, of equal ones the first
        order = value.argsort(descending=True, stable=True)
        assert torch.equal(keep[order], torch.arange(len(value)) < int(keep.sum()))
    free = [i for i, (keep, few) in enumerate(zip(keeps, least, strict=True)) if int(keep.sum()) > few]
    gone: list[Tensor] = [v[~k] for v, k in zip(values, keeps, strict=True) if bool((~k).any())]
    for i in free:  # what a layer keeps beyond its floor is no less than what any other has lost
        assert all(float(values[i][keeps[i]].min()) >= float(lost.max()) for lost in gone)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(data=st.data())
def test_one_ranking_finds_what_asking_again_does(dtype: torch.dtype, data: st.DataObject) -> None:
    size, absolute = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    layers = [
        [
            Units(
                f"layer{i}",
                torch.tensor(data.draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n)), dtype=dtype),
                absolute,
                data.draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n).map(torch.tensor)),
                weights=size,
                threshold=0.5,
            )
            for n in members
        ]
        for i, members in enumerate(
            data.draw(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=2), min_size=1, max_size=4))
        )
    ]
    weights = [size * sum(units.values.numel() for units in layer) for layer in layers]
    least = [data.draw(st.integers(0, n)) for n in weights]
    drop = data.draw(st.integers(0, sum(weights)))
    keeps, threshold = floor.select(Exact(), layers, least, drop, drop / sum(weights))
    again, its_threshold = floor._again(Exact(), layers, least, drop, drop / sum(weights))
    assert threshold == its_threshold
    for one, other in zip(keeps, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("widest", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("sparsity", [0.1, 0.8, 0.99])
def test_one_ranking_finds_it_among_many_weights_of_all_scales(sparsity: float, widest: float) -> None:
    draw = torch.Generator().manual_seed(round(10 * widest))
    sizes = [200_000, 50, 90_000, 7_000, 3, 100_000, 20_000]
    scales = torch.linspace(0, 1, len(sizes)).mul(-math.log(widest)).exp().tolist()
    values = [s * torch.randn(n, generator=draw) for n, s in zip(sizes, scales, strict=True)]
    values[3].zero_()
    alive = [torch.rand(n, generator=draw) < share for n, share in zip(sizes, (1, 1, 0.01, 1, 1, 0.5, 0), strict=True)]
    layers = [[Units(f"layer{i}", v, True, a)] for i, (v, a) in enumerate(zip(values, alive, strict=True))]
    least, drop = [math.ceil(0.001 * n) for n in sizes], round(sparsity * sum(sizes))
    keeps, threshold = floor.select(Exact(), layers, least, drop, sparsity)
    again, its_threshold = floor._again(Exact(), layers, least, drop, sparsity)
    assert threshold == its_threshold
    assert all(map(torch.equal, keeps, again))
    held = [int(k.sum()) == min(few, int(a.sum())) for k, few, a in zip(keeps, least, alive, strict=True)]
    assert sum(held) >= (4 if sparsity > 0.5 and widest > 1 else 1)
