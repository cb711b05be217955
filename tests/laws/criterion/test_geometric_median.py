"""The geometric median by hand: the filter nearest to it goes first, and filters that are gone do not count."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.criterion import GeometricMedian, geometric_median
from lightning_prune.pattern import Row
from tests.helpers import pruned_once
from tests.laws.criterion.weights import linear, weight_and_grad


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
