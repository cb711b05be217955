"""Laws of every criterion under conf/pruner/criterion; what single ones compute is in tests/laws/criterion."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.criterion import ObservingCriterion, SitedCriterion
from tests.helpers import FLOATS, ideas, same
from tests.laws.criterion.weights import SHAPES, scored, weight_and_grad

CRITERIA = pytest.mark.parametrize("criterion", ideas("criterion"))


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
    if not isinstance(criterion, ObservingCriterion):
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
