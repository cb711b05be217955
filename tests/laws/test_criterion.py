"""Laws of every criterion under conf/pruner/criterion, and the formulas of those that are there."""

import math
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune.criterion import (
    FilterNorm,
    FirstOrderDelta,
    GeometricMedian,
    KMeans,
    Magnitude,
    NormScale,
    Random,
    SecondOrderDelta,
    Site,
    SitedCriterion,
    geometric_median,
)
from lightning_prune.pattern import Row
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot
from tests.helpers import FLOATS, criterion_at, ideas, pruned_once, same

CRITERIA = pytest.mark.parametrize("criterion", ideas("criterion"))
SHAPES = [(1, 1), (4, 3), (1, 9), (5, 2, 3, 3), (3, 4, 5)]


def weight_and_grad(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return weight, grad


def scored(criterion: Any, weight: Tensor, grad: Tensor | None, **site: Any) -> Tensor:
    """Return the scores of a weight with a norm behind it."""
    return criterion_at(criterion, **site, norm=torch.linspace(-1.0, 0.5, len(weight)))(weight, grad)


@CRITERIA
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_finite(criterion: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight, grad = weight_and_grad(shape, dtype)
    scores = scored(criterion, weight, grad)
    assert scores.shape == weight.shape
    assert scores.is_floating_point()
    assert torch.isfinite(scores).all()


@CRITERIA
def test_finite_where_weights_and_gradients_are_zero(criterion: Any) -> None:
    nothing = torch.zeros(4, 6)
    for weight, grad in ((nothing, nothing), (nothing, torch.ones(4, 6)), (torch.ones(4, 6), nothing)):
        assert torch.isfinite(scored(criterion, weight, grad)).all()


@CRITERIA
def test_G1_deterministic_with_the_global_generators_untouched(criterion: Any) -> None:
    weight, grad = weight_and_grad((6, 5))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
        found.append(scored(criterion, weight, grad, name="layer.weight", step=30))
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)
    assert torch.equal(*found)


@CRITERIA
def test_inputs_stay_as_they_are(criterion: Any) -> None:
    weight, grad = weight_and_grad((6, 5))
    copies = weight.clone(), grad.clone()
    memory: dict[str, Tensor] = {}
    scores = scored(criterion, weight, grad, memory=memory)
    scores.add_(1.0)
    kept = {key: value.clone() for key, value in memory.items()}
    weight.mul_(3.0)
    assert same(memory, kept), "the memory must not be the weight itself"
    assert same([weight / 3.0, grad], list(copies)) or torch.allclose(weight / 3.0, copies[0])
    assert torch.equal(grad, copies[1])


@CRITERIA
def test_a_criterion_with_memory_takes_it_up_where_it_was_left(criterion: Any) -> None:
    """Two calls with one memory are the same as a copy of the first memory and a second call: the memory is all."""
    one: dict[str, Tensor] = {}
    weights = [weight_and_grad((4, 4), seed=seed) for seed in range(3)]
    for weight, grad in weights[:2]:
        scored(criterion, weight, grad, step=1, memory=one)
    saved = {key: value.clone() for key, value in one.items()}
    assert all(value.shape == (4, 4) for value in saved.values())
    continued = scored(criterion, *weights[2], step=2, memory=one)
    resumed = scored(criterion, *weights[2], step=2, memory=saved)
    assert torch.equal(continued, resumed)


@CRITERIA
def test_the_absolute_mark_is_true(criterion: Any) -> None:
    """`absolute` lets a selection read the weight instead of the scores, so they must be |weight| to the bit."""
    if getattr(criterion, "absolute", False):
        assert not isinstance(criterion, SitedCriterion)
        weight, grad = weight_and_grad((7, 9), torch.bfloat16)
        assert same(criterion(weight, grad), weight.abs())
    else:
        weight, grad = weight_and_grad((7, 9))
        assert not torch.equal(scored(criterion, weight, grad), weight.abs())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_magnitude_scales_with_the_weight(dtype: torch.dtype) -> None:
    weight, _ = weight_and_grad((8, 8), dtype)
    assert same(Magnitude()(weight * 4, None), Magnitude()(weight, None) * 4)
    assert same(Magnitude()(-weight, None), Magnitude()(weight, None))


def test_G1_random_differs_by_seed_step_and_name_alone() -> None:
    weight = torch.zeros(50, 4)
    ask = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]
    found = [criterion_at(Random(seed), name, step)(weight, None) for seed, name, step in ask]
    for i, one in enumerate(found):
        assert 0 <= float(one.min()) <= float(one.max()) < 1
        assert abs(float(one.mean()) - 0.5) < 0.1
        for other in found[:i]:
            assert (one == other).sum() < 5
    assert torch.equal(found[0], criterion_at(Random(0), "a", 1)(weight + 7, torch.ones(50, 4)))


@pytest.mark.parametrize("kind", [FirstOrderDelta, SecondOrderDelta])
@given(decay=st.sampled_from([0.0, 0.5, 0.9, 0.99]), updates=st.integers(1, 6), seed=st.integers(0, 99))
def test_delta_criteria_against_a_loop_by_hand(kind: type[Any], decay: float, updates: int, seed: int) -> None:
    weights = [weight_and_grad((3, 4), seed=seed + i)[0].numpy().astype(np.float64) for i in range(updates)]
    memory: dict[str, Tensor] = {}
    running = old = older = np.zeros((3, 4))
    for w in weights:
        delta = np.abs(w - old) if kind is FirstOrderDelta else np.abs(w + older - 2 * old)
        running = decay * running + (1 - decay) * delta / np.sqrt((delta**2).sum())
        expected = np.abs(w) * running
        older, old = old, w
        found = criterion_at(kind(decay), memory=memory)(torch.from_numpy(w).float(), None)
        np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [FirstOrderDelta, SecondOrderDelta])
def test_delta_criteria_where_nothing_moved(kind: type[Any]) -> None:
    memory: dict[str, Tensor] = {}
    for _ in range(5):
        scores = criterion_at(kind(), memory=memory)(torch.zeros(3, 3), None)
        assert torch.equal(scores, torch.zeros(3, 3))


@pytest.mark.parametrize("kind", [FirstOrderDelta, SecondOrderDelta])
@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_G13_a_decay_out_of_range(kind: type[Any], decay: float) -> None:
    with pytest.raises(ValueError, match="decay="):
        kind(decay)


# Criteria for whole outputs

FOR_OUTPUTS = [FilterNorm(1), FilterNorm(2), GeometricMedian(), KMeans(), NormScale()]


@pytest.mark.parametrize("criterion", FOR_OUTPUTS, ids=lambda c: f"{c}".partition(", norm")[0])
@pytest.mark.parametrize("shape", [*SHAPES, (7,)], ids=str)
def test_scores_of_whole_outputs_are_the_same_along_each(criterion: Any, shape: tuple[int, ...]) -> None:
    scores = scored(criterion, *weight_and_grad(shape))
    rows = scores.reshape(shape[0], -1)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    torch.testing.assert_close(Row().units(scores), rows[:, 0])


@pytest.mark.parametrize("criterion", [FilterNorm(1), FilterNorm(2), GeometricMedian()], ids=str)
@given(seed=st.integers(0, 99))
def test_outputs_in_another_order_score_as_before(criterion: Any, seed: int) -> None:
    weight, _ = weight_and_grad((9, 2, 3), seed=seed)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(criterion(weight[order], None), criterion(weight, None)[order])


@given(p=st.sampled_from([1, 2]), shape=st.sampled_from([*SHAPES, (6,)]), seed=st.integers(0, 99))
def test_filter_norm_by_hand(p: int, shape: tuple[int, ...], seed: int) -> None:
    weight, _ = weight_and_grad(shape, torch.float64, seed)
    expected = [(np.abs(output.numpy()) ** p).sum() ** (1 / p) for output in weight]
    np.testing.assert_allclose(FilterNorm(p)(weight, None).reshape(shape[0], -1)[:, 0].numpy(), expected)


def test_filter_norms_of_half_precision_do_not_overflow() -> None:
    weight = torch.full((2, 64), 6e4, dtype=torch.float16)
    assert float(FilterNorm(1)(weight, None)[0, 0]) == pytest.approx(64 * 6e4)
    assert float(FilterNorm(2)(weight, None)[0, 0]) == pytest.approx(8 * 6e4)


@pytest.mark.parametrize("p", [0, 3, -1, 1.5])
def test_G13_a_filter_norm_that_is_none(p: Any) -> None:
    with pytest.raises(ValueError, match=f"p={p}"):
        FilterNorm(p)


@given(outputs=st.integers(1, 40), inputs=st.integers(1, 6), dead=st.integers(0, 3), seed=st.integers(0, 99))
def test_geometric_median_by_hand(outputs: int, inputs: int, dead: int, seed: int) -> None:
    weight, _ = weight_and_grad((outputs, inputs), torch.float64, seed)
    weight[: min(dead, outputs - 1)] = 0.0
    points = weight.numpy()
    expected = [sum(np.sqrt(((x - y) ** 2).sum()) for y in points if y.any()) for x in points]
    np.testing.assert_allclose(GeometricMedian()(weight, None)[:, 0].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_geometric_median_scores_a_masked_layer_like_a_shrunk_one() -> None:
    weight, _ = weight_and_grad((10, 4))
    masked = weight.clone()
    masked[[2, 5]] = 0.0
    alive = [i for i in range(10) if i not in (2, 5)]
    torch.testing.assert_close(GeometricMedian()(masked, None)[alive], GeometricMedian()(weight[alive], None))


def test_geometric_median_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = weight_and_grad((50, 8))
    whole = GeometricMedian()(weight, None)
    for distances in (1, 130, 2499):
        monkeypatch.setattr(geometric_median, "_DISTANCES", distances)
        torch.testing.assert_close(GeometricMedian()(weight, None), whole, rtol=1e-4, atol=1e-4)


def test_the_filter_at_the_geometric_median_goes_first() -> None:
    weight = torch.tensor([[0.0, 5.0], [5.0, 0.0], [10.0, 5.0], [5.0, 10.0], [5.5, 5.0]])
    pruner = pruned_once(linear(weight), 0.2, criterion=GeometricMedian(), pattern=Row())
    assert pruner.masks["weight"].mask.any(1).tolist() == [True, True, True, True, False]


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    return layer


def clusters(weight: Tensor, sparsity: float, seed: int = 0, step: int = 0, name: str = "w") -> Tensor:
    """Return one k-means score per filter."""
    return KMeans(seed).at(Site(name, step, sparsity=sparsity))(weight, None).reshape(len(weight), -1)[:, 0]


@given(outputs=st.integers(1, 40), parts=st.integers(0, 20), seed=st.integers(0, 99))
def test_k_means_names_as_many_representatives_as_are_to_stay(outputs: int, parts: int, seed: int) -> None:
    weight, _ = weight_and_grad((outputs, 3), seed=seed)
    scores = clusters(weight, parts / 20, seed)
    expected = max(1, math.ceil(outputs * (1 - Fraction(parts, 20))))
    assert int((scores >= 2).sum()) == expected
    assert int(((scores >= 0) & (scores <= 1)).sum()) == outputs - expected


@given(seed=st.integers(0, 99), groups=st.integers(2, 5), shape=st.sampled_from([(4,), (2, 2), (1, 2, 3)]))
def test_k_means_keeps_the_nearest_of_each_cluster(seed: int, groups: int, shape: tuple[int, ...]) -> None:
    """Four filters around each of some far points; the first lies nearest to their mean."""
    away = torch.tensor([[0.1, 0.0], [2.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    points = torch.zeros(groups, 4, math.prod(shape))
    points[..., :2] = 100.0 * torch.arange(1.0, groups + 1)[:, None, None] + away
    order = torch.randperm(4 * groups, generator=torch.Generator().manual_seed(seed))
    scores = clusters(points.flatten(0, 1)[order].view(-1, *shape), 0.75, seed)
    assert sorted(order[scores >= 2].tolist()) == list(range(0, 4 * groups, 4))
    farthest = order % 4 == 1
    assert scores[farthest].tolist() == pytest.approx([0.0] * groups, abs=1e-3)
    assert (scores[~farthest] > 0.1).all()


def test_k_means_through_the_pruner_keeps_the_representatives() -> None:
    weight = torch.tensor([[10.0, 0.0], [10.0, 2.0], [10.0, -1.9], [-5.0, 5.0], [-5.0, 5.1], [-5.0, 4.7]])
    pruner = pruned_once(linear(weight), 2 / 3, criterion=KMeans(), pattern=Row())
    assert pruner.masks["weight"].mask.any(1).tolist() == [True, False, False, True, False, False]


def test_k_means_puts_filters_that_are_gone_in_no_cluster() -> None:
    weight, _ = weight_and_grad((12, 5))
    weight[3:7] = 0.0
    scores = clusters(weight, 0.5)
    assert scores[3:7].tolist() == [0.0] * 4
    assert int((scores >= 2).sum()) == 6
    assert (clusters(weight, 0.2) >= 2).tolist() == [True] * 3 + [False] * 4 + [True] * 5


def test_k_means_with_fewer_different_filters_than_clusters() -> None:
    scores = clusters(torch.tensor([[1.0, 2.0]] * 4 + [[3.0, 1.0]] * 2), 0.5)
    assert (scores >= 2).tolist() == [True, False, False, False, True, False]
    assert torch.isfinite(scores).all()


def test_G1_k_means_differs_by_seed_step_and_name_alone() -> None:
    weight, _ = weight_and_grad((60, 4))
    ask = [(0, 0, "w"), (1, 0, "w"), (0, 1, "w"), (0, 0, "v")]
    found = [clusters(weight, 0.5, *site) for site in ask]
    assert all(not torch.equal(one, other) for i, one in enumerate(found) for other in found[:i])
    assert all(torch.equal(clusters(weight, 0.5, *site), one) for site, one in zip(ask, found, strict=True))


def test_G1_k_means_is_the_same_with_any_number_of_threads() -> None:
    weight, _ = weight_and_grad((900, 6))
    before = torch.get_num_threads()
    try:
        found = [clusters(weight, 0.7) for threads in (1, 2, 4) if not torch.set_num_threads(threads)]
        assert torch.get_num_threads() == 4, "the user's number of threads is left alone"
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_G13_k_means_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"scikit-learn: pip install 'lightning-prune\[structured\]'"):
        KMeans()


@pytest.mark.parametrize("criterion", FOR_OUTPUTS[:-1], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_G13_weights_that_are_not_finite_are_named(criterion: Any, value: float) -> None:
    layer = linear(weight_and_grad((6, 4))[0])
    pruner = Pruner(OneShot(0.5, 1), criterion=criterion, pattern=Row())
    pruner.attach(layer)
    with torch.no_grad():
        layer.weight[2, 1] = value
    with pytest.raises(ValueError, match="score of 'weight' is not finite"):
        pruner.after_step(1)


def test_norm_scale_is_the_absolute_scale_of_each_output() -> None:
    weight, _ = weight_and_grad((3, 2, 2))
    scores = NormScale().at(Site("w", 0, norm=torch.tensor([0.5, -2.0, 0.0])))(weight, None)
    assert scores.flatten(1).tolist() == [[0.5] * 4, [2.0] * 4, [0.0] * 4]


def test_G13_norm_scale_without_a_norm_behind_the_weight_names_it() -> None:
    with pytest.raises(ValueError, match=r"no norm layer behind '0\.weight': use a channel pattern"):
        pruned_once(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), 0.5, criterion=NormScale(), pattern=Row())
    with pytest.raises(ValueError, match="behind 'w' has 2 scales for 3 outputs"):
        NormScale().at(Site("w", 0, norm=torch.ones(2)))(torch.ones(3, 4), None)
