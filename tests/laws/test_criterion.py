"""Laws of every criterion under conf/pruner/criterion, and the formulas of those that are there."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.criterion.first_order_delta import FirstOrderDelta
from lightning_prune.criterion.magnitude import Magnitude
from lightning_prune.criterion.random import Random
from lightning_prune.criterion.second_order_delta import SecondOrderDelta
from lightning_prune.protocols import SitedCriterion
from tests.helpers import FLOATS, criterion_at, ideas, same

CRITERIA = pytest.mark.parametrize("criterion", ideas("criterion"))
SHAPES = [(1, 1), (4, 3), (1, 9), (5, 2, 3, 3), (3, 4, 5)]


def weight_and_grad(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return weight, grad


@CRITERIA
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_finite(criterion: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight, grad = weight_and_grad(shape, dtype)
    scores = criterion_at(criterion)(weight, grad)
    assert scores.shape == weight.shape
    assert scores.is_floating_point()
    assert torch.isfinite(scores).all()


@CRITERIA
def test_finite_where_weights_and_gradients_are_zero(criterion: Any) -> None:
    nothing = torch.zeros(4, 6)
    for weight, grad in ((nothing, nothing), (nothing, torch.ones(4, 6)), (torch.ones(4, 6), nothing)):
        assert torch.isfinite(criterion_at(criterion)(weight, grad)).all()


@CRITERIA
def test_G1_deterministic_with_the_global_generators_untouched(criterion: Any) -> None:
    weight, grad = weight_and_grad((6, 5))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
        found.append(criterion_at(criterion, "layer.weight", 30)(weight, grad))
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)
    assert torch.equal(*found)


@CRITERIA
def test_inputs_stay_as_they_are(criterion: Any) -> None:
    weight, grad = weight_and_grad((6, 5))
    copies = weight.clone(), grad.clone()
    memory: dict[str, Tensor] = {}
    scores = criterion_at(criterion, memory=memory)(weight, grad)
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
        criterion_at(criterion, step=1, memory=one)(weight, grad)
    saved = {key: value.clone() for key, value in one.items()}
    assert all(value.shape == (4, 4) for value in saved.values())
    continued = criterion_at(criterion, step=2, memory=one)(*weights[2])
    resumed = criterion_at(criterion, step=2, memory=saved)(*weights[2])
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
        assert not torch.equal(criterion_at(criterion)(weight, grad), weight.abs())


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
