"""K-means: as many representatives as filters are to stay, the nearest to the mean of each cluster."""

import math
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.criterion import KMeans, Site
from lightning_prune.pattern import Row
from tests.helpers import pruned_once
from tests.laws.criterion.weights import linear, weight_and_grad


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


@pytest.mark.slow
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


def test_weights_that_are_on_the_host_already_score_the_same() -> None:
    """By name; others are looked at where they lie. What is handed over counts, not the weight that is asked for."""
    weight, other = torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(0)), torch.randn(12, 4)
    plain, hosted = KMeans(seed=3), KMeans(seed=3).hosted({"a": weight, "b": other})
    site = Site("a", 5, sparsity=0.5)
    assert torch.equal(hosted.at(site)(torch.zeros_like(weight), None), plain.at(site)(weight, None))
    elsewhere = Site("c", 5, sparsity=0.5)
    assert torch.equal(hosted.at(elsewhere)(other, None), plain.at(elsewhere)(other, None))
