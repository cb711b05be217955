"""Group lasso: the sum over outputs by hand, and that an output goes as one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.regularizer import GroupLasso
from tests.laws.regularizer.gradients import draw_weight, gradient


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
