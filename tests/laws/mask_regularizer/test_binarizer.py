"""The binarizer by hand: it moves every probability away from tau, and without one sends the share asked for to 0."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.mask_regularizer import Binarizer, binarizer
from tests.laws.mask_regularizer.probabilities import P, probabilities


@given(values=P, tau=st.floats(0, 1), q=st.sampled_from([1.0, 2.0, 3.0]))
def test_binarizer_by_hand(values: list[float], tau: float, q: float) -> None:
    p = probabilities(values)
    value = Binarizer(tau, q, 0.7)(p, p.mean(), 0.0)
    assert float(value.detach()) == pytest.approx(-0.7 * sum(abs(v - tau) ** q for v in values) / len(values))
    (grad,) = torch.autograd.grad(value, p)
    hand = [-0.7 * q * abs(v - tau) ** (q - 1) * (v > tau or -1) / len(values) for v in values]
    assert [g for g, v in zip(grad.tolist(), values, strict=True) if v != tau] == pytest.approx(
        [h for h, v in zip(hand, values, strict=True) if v != tau]
    )


SLOW = pytest.mark.slow


@pytest.mark.parametrize("tau", [0.2, pytest.param(0.5, marks=SLOW), pytest.param(0.9, marks=SLOW)])
def test_binarizer_moves_p_away_from_tau_and_its_fixed_points_are_0_and_1(tau: float) -> None:
    p = torch.tensor([tau - 0.1, tau - 0.001, tau + 0.001, tau + 0.09])
    start = p.clone()
    for _ in range(10_000):
        p.requires_grad_()
        (grad,) = torch.autograd.grad(Binarizer(tau)(p, p.mean(), 0.0), p)
        p = (p - 0.01 * grad).detach().clamp(0, 1)
    assert p.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert [a < b for a, b in zip(p, start, strict=True)] == [True, True, False, False]


@given(values=st.lists(st.floats(0.01, 0.99), min_size=5, max_size=30, unique=True), asked=st.floats(0.05, 0.95))
def test_binarizer_without_tau_sends_the_share_asked_for_to_0(values: list[float], asked: float) -> None:
    p = probabilities(values)
    (grad,) = torch.autograd.grad(Binarizer(None)(p, p.mean(), asked), p)
    down = int((grad > 0).sum())  # descent lowers them
    assert abs(down - asked * (len(values) - 1)) <= 1


@given(values=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=30), asked=st.floats(0.0, 1.0))
def test_the_watershed_of_more_values_than_torch_takes_is_found_alike(values: list[float], asked: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = Binarizer(None)(probabilities(values), torch.tensor(0.0), asked)
        patch.setattr(binarizer, "_MOST", 1)
        found = Binarizer(None)(probabilities(values), torch.tensor(0.0), asked)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_binarizer_without_tau_takes_more_units_than_torch_sorts() -> None:
    p = torch.arange((1 << 24) + 2, dtype=torch.float32).div_(1 << 25)
    assert float(Binarizer(None, q=1.0)(p, torch.tensor(0.0), 0.5)) == pytest.approx(-0.125, rel=1e-3)
