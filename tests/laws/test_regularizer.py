"""Laws of every regularizer under conf/pruner/regularizer, and the formulas of those that are there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.regularizer import L1, L2, GroupLasso, Growing, Moment, NearThreshold, NormL1, SitedRegularizer
from lightning_prune.schedule import Polynomial
from tests.helpers import FLOATS, ideas

REGULARIZERS = pytest.mark.parametrize("regularizer", ideas("regularizer"))
THRESHOLDS = st.sampled_from([-0.5, 0.0, 0.1, 0.7, 3.0])


def draw_weight(seed: int, shape: tuple[int, ...] = (5, 6)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gradient(regularizer: Any, weight: Tensor, threshold: float) -> Tensor:
    return torch.autograd.grad(regularizer(weight, threshold), weight)[0]


@REGULARIZERS
@given(seed=st.integers(0, 99), threshold=THRESHOLDS)
def test_a_scalar_that_is_finite_and_not_negative(regularizer: Any, seed: int, threshold: float) -> None:
    for shape in ((5, 6), (4, 3, 2, 2), (1, 1)):
        penalty = regularizer(draw_weight(seed, shape), threshold).detach()
        assert penalty.shape == ()
        assert float(penalty) >= 0.0
        assert torch.isfinite(penalty)


@REGULARIZERS
@given(threshold=THRESHOLDS)
def test_nothing_at_zero_weights(regularizer: Any, threshold: float) -> None:
    nothing = torch.zeros(4, 4, requires_grad=True)
    assert float(regularizer(nothing, threshold).detach()) == 0.0
    grad = gradient(regularizer, nothing, threshold)
    assert torch.isfinite(grad).all()
    assert float(grad.abs().max()) == 0.0


@REGULARIZERS
def test_it_does_something(regularizer: Any) -> None:
    if isinstance(regularizer, SitedRegularizer):
        going = torch.ones(5, 6, dtype=torch.bool)
        found = [gradient(regularizer.at(Moment(role, 0.5, going)), draw_weight(0), 0.5) for role in ("weight", "norm")]
        assert max(float(grad.abs().max()) for grad in found) > 0.0
        return
    assert float(gradient(regularizer, draw_weight(0), 0.5).abs().max()) > 0.0


@given(progress=st.floats(0, 1), seed=st.integers(0, 99))
def test_growing_draws_what_goes_and_nothing_else(progress: float, seed: int) -> None:
    weight, going = draw_weight(seed), torch.rand(5, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
    grad = gradient(Growing(0.3).at(Moment("weight", progress, going)), weight, 0.5)
    assert torch.allclose(grad, torch.where(going, 0.3 * progress * weight.detach(), 0.0))
    before = gradient(Growing(0.3).at(Moment("weight", progress, None)), weight, 0.5)
    assert not before.any()


def test_norm_l1_is_for_norms_alone() -> None:
    scale = draw_weight(0, (6,))
    assert torch.equal(gradient(NormL1(0.2).at(Moment("norm")), scale, 0.0), 0.2 * scale.detach().sign())
    for role in ("weight", "bias"):
        assert not gradient(NormL1(0.2).at(Moment(role)), scale, 0.0).any()


def conv_net_with_norms() -> Any:
    torch.manual_seed(0)
    model: Any = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)
    )
    model.example_input_array = torch.randn(1, 3, 8, 8)
    return model


def test_norm_l1_and_growing_act_through_a_pruner_with_channels() -> None:
    for regularizer in (NormL1(0.5), Growing(0.5)):
        model = conv_net_with_norms()
        pruner = Pruner(Polynomial(0.7, 0, 10, 1), pattern=Channel(), regularizer=regularizer)
        pruner.attach(model)
        pruner.after_step(1)
        (model(model.example_input_array).sum() * 0.0).backward()
        pruner.before_step()
        touched = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        if isinstance(regularizer, NormL1):
            assert touched == {"1.weight"}
        else:
            assert "0.weight" in touched
            again = Pruner(Polynomial(0.7, 0, 10, 1), pattern=Channel(), regularizer=regularizer)
            again.load_state_dict(pruner.state_dict())
            twin = conv_net_with_norms()
            twin.load_state_dict(model.state_dict())
            again.attach(twin)
            (twin(twin.example_input_array).sum() * 0.0).backward()
            again.before_step()
            for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
                assert torch.equal(mine.grad, other.grad)
        assert pruner.penalty > 0


def test_norm_l1_without_norms_is_refused() -> None:
    with pytest.raises(ValueError, match=r"NormL1.*no norm layer"):
        Pruner(Polynomial(0.5, 0, 10, 5), regularizer=NormL1(0.1)).attach(conv_net_with_norms())
    plain = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    pattern = Channel(example_inputs=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"NormL1.*no norm layer"):
        Pruner(Polynomial(0.5, 0, 10, 5), pattern=pattern, regularizer=NormL1(0.1)).attach(plain)


@REGULARIZERS
@given(seed=st.integers(0, 99), threshold=THRESHOLDS)
def test_a_small_step_against_the_gradient_makes_it_no_larger(regularizer: Any, seed: int, threshold: float) -> None:
    weight = draw_weight(seed).detach().double().requires_grad_()
    grad = gradient(regularizer, weight, threshold)
    largest = float(grad.abs().max())
    moved = weight.detach() - (1e-6 / largest if largest else 0.0) * grad
    assert float(regularizer(moved, threshold)) <= float(regularizer(weight, threshold).detach())


@REGULARIZERS
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_dtype_of_the_weight_is_kept(regularizer: Any, dtype: torch.dtype) -> None:
    weight = draw_weight(3).detach().to(dtype).requires_grad_()
    assert gradient(regularizer, weight, 0.5).dtype == dtype


FORMULAS: list[tuple[Any, Callable[[Tensor, float], Tensor]]] = [
    (L1(0.25), lambda w, t: 0.25 * w.sign()),
    (L2(0.25), lambda w, t: 2 * 0.25 * w),
    (NearThreshold(0.25, reach=2.0), lambda w, t: 0.25 * w.sign() * (w.abs() < 2.0 * max(t, 0.0))),
    (GroupLasso(0.25), lambda w, t: 0.25 * 6**0.5 * w / w.square().sum(1, keepdim=True).sqrt()),
]


@pytest.mark.parametrize(("regularizer", "formula"), FORMULAS, ids=["l1", "l2", "near_threshold", "group_lasso"])
@given(seed=st.integers(0, 99), threshold=THRESHOLDS)
def test_G18_the_gradient_is_the_one_by_hand(
    regularizer: Any, formula: Callable[[Tensor, float], Tensor], seed: int, threshold: float
) -> None:
    weight = draw_weight(seed)
    torch.testing.assert_close(gradient(regularizer, weight, threshold), formula(weight.detach(), threshold))


@pytest.mark.parametrize("kind", [L1, L2, NearThreshold, GroupLasso, Growing, NormL1])
@pytest.mark.parametrize("strength", [-1.0, float("inf"), float("nan")])
def test_G13_a_strength_that_is_none(kind: type[Any], strength: float) -> None:
    with pytest.raises(ValueError, match="strength="):
        kind(strength)


@pytest.mark.parametrize("reach", [0.0, -1.0, float("inf"), float("nan")])
def test_G13_a_reach_that_is_none(reach: float) -> None:
    with pytest.raises(ValueError, match="reach="):
        NearThreshold(0.1, reach)


@given(seed=st.integers(0, 99), shape=st.sampled_from([(4, 3, 2, 2), (3, 5), (6,), (1, 1)]))
def test_group_lasso_is_the_sum_over_outputs_by_hand(seed: int, shape: tuple[int, ...]) -> None:
    weight = draw_weight(seed, shape).detach().double()
    expected = sum(2.0 * output.numel() ** 0.5 * float(output.square().sum()) ** 0.5 for output in weight)
    assert float(GroupLasso(2.0)(weight, 0.0)) == pytest.approx(expected)


def test_group_lasso_alone_takes_whole_outputs_to_zero() -> None:
    """Under the penalty's own gradient flow all weights of an output shrink alike, so the output goes as one."""
    weight = draw_weight(1, (4, 5)).detach().double().requires_grad_()
    directions = torch.nn.functional.normalize(weight.detach().clone(), dim=1)
    with torch.no_grad():
        weight[3] = 0.0
    for _ in range(50):
        grad = gradient(GroupLasso(1.0), weight, 0.0)
        with torch.no_grad():
            weight -= 1e-3 * grad
    torch.testing.assert_close(torch.nn.functional.normalize(weight.detach()[:3], dim=1), directions[:3])
    assert weight[3].tolist() == [0.0] * 5


def test_group_lasso_of_half_precision_does_not_overflow() -> None:
    weight = torch.full((2, 64), 6e4, dtype=torch.float16).requires_grad_()
    assert float(GroupLasso(1.0)(weight, 0.0).detach()) == pytest.approx(2 * 8 * 8 * 6e4, rel=1e-3)
    assert gradient(GroupLasso(1.0), weight, 0.0).flatten().tolist() == [1.0] * 128
