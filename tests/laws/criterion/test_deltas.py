"""The criteria that remember how weights moved, against a loop by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.criterion import FirstOrderDelta, SecondOrderDelta
from tests.helpers import criterion_at
from tests.laws.criterion.weights import weight_and_grad


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
