"""The formulas of learned thresholds, and the budget that they keep together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.gate import SoftThreshold
from lightning_prune.learned.thresholds import balanced, common_shift

WEIGHTS = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20)


def soft(weight: Tensor, logits: Tensor, t: float = 0.5) -> Tensor:
    mask = SoftThreshold().at(weight, t).sample(logits, logits, 0.0)
    return weight * mask.view(weight.shape)


@given(values=WEIGHTS, logit=st.floats(-5, 2))
def test_the_masked_weight_is_the_soft_threshold_of_it(values: list[float], logit: float) -> None:
    weight, logits = torch.tensor(values, dtype=torch.float64), torch.tensor([logit], dtype=torch.float64)
    by_hand = [math.copysign(max(abs(w) - math.exp(logit), 0.0), w) for w in values]
    assert soft(weight, logits).tolist() == pytest.approx(by_hand, abs=1e-12)
    gate = SoftThreshold().at(weight, 0.5)
    assert torch.equal(gate.settled(logits) > 0, gate.probability(logits) > 0.5)
    assert torch.equal(gate.worth(logits) > 0, weight.abs().log() > logits)


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9])
def test_another_t_is_a_factor_on_the_threshold(t: float) -> None:
    weight, logits = torch.linspace(-1, 1, 41, dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    threshold = math.exp(-1.0) * t / (1 - t)
    assert torch.allclose(soft(weight, logits, t), weight.sign() * (weight.abs() - threshold).relu())
    gate = SoftThreshold().at(weight, t)
    assert torch.equal((gate.settled(logits) > 0)[weight != 0], (gate.probability(logits) > t)[weight != 0])


def test_gradients_by_hand_and_against_finite_differences() -> None:
    weight = torch.tensor([[-0.9, -0.1, 0.0], [0.2, 0.5, 2.0]], dtype=torch.float64, requires_grad=True)
    logits = torch.tensor([math.log(0.3)], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft, (weight, logits))
    above = torch.tensor([[1.0, 0, 0], [0, 1, 1]], dtype=torch.float64)
    upstream = torch.tensor([[0.7, 3.0, 4.0], [5.0, -1.0, 0.4]], dtype=torch.float64)
    by_weight, by_logit = torch.autograd.grad((soft(weight, logits) * upstream).sum(), (weight, logits))
    assert torch.equal(by_weight, upstream * above)
    assert float(by_logit) == pytest.approx(-0.3 * float((upstream * weight.detach().sign() * above).sum()))
    gate = SoftThreshold().at(weight, 0.5)
    assert torch.autograd.gradcheck(gate.probability, logits)


def test_crossing_is_the_density_of_weights_at_the_threshold() -> None:
    weight = torch.linspace(-8, 8, 400_001).exp()  # 25,000 a unit of the logarithm
    gate = SoftThreshold().at(weight, 0.5)
    assert float(gate.crossing(torch.tensor([1.0]))) == pytest.approx(25_000, rel=1e-3)


@given(seed=st.integers(0, 100), share=st.floats(0, 1))
def test_the_common_shift_puts_every_threshold_between_kept_and_gone(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    worth = [torch.randn(size, generator=generator) for size in (7, 1, 12)]
    kept = round(share * 20)
    least = torch.cat(worth).sort(descending=True).values[kept - 1] if kept else math.inf
    keeps = [w >= least for w in worth]
    shift = common_shift(worth, keeps)
    gone = torch.cat([w[~keep] for w, keep in zip(worth, keeps, strict=True)])
    clear = not len(gone) or float(least - gone.max()) > 1e-3
    for w, keep in zip(worth, keeps, strict=True):
        above = w - shift > 0
        if not kept:
            assert shift == 0.0
        elif clear:
            assert torch.equal(above, keep)
        else:  # too close for float32 to part them: none that is kept falls to its threshold, the mask says what goes
            assert bool((above | ~keep).all())


def test_the_common_shift_with_ties_and_zeros() -> None:
    tie = common_shift([torch.tensor([1.0, 1.0, 2.0])], [torch.tensor([False, True, True])])
    assert 0.99 < tie < 1.0  # both are above; the mask decides
    zero = common_shift([torch.tensor([-torch.inf, 1.0])], [torch.tensor([False, True])])
    assert zero == pytest.approx(0.0)
    assert common_shift([torch.tensor([-torch.inf])], [torch.tensor([True])]) == 0.0


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0.1, 9)), min_size=1, max_size=5))
def test_balanced_gradients_change_no_count(pairs: list[tuple[float, float]]) -> None:
    grads = [torch.tensor([g], dtype=torch.float64) for g, _ in pairs]
    crossing = [torch.tensor(n, dtype=torch.float64) for _, n in pairs]
    found = balanced(grads, crossing)
    # The loss with the shift that keeps the count, L(v + s(v)) with ds/dv_i = -n_i / N, differentiated by hand.
    total = sum(g for g, _ in pairs)
    for grad, (g, n) in zip(found, pairs, strict=True):
        assert float(grad) == pytest.approx(g - total * n / sum(m for _, m in pairs), abs=1e-9)
    assert float(sum(found)) == pytest.approx(0.0, abs=1e-9)  # a common shift is worth nothing


def test_without_weights_near_any_threshold_gradients_stay() -> None:
    grads = [torch.tensor([1.0]), torch.tensor([2.0])]
    assert balanced(grads, [torch.tensor(0.0), torch.tensor(0.0)]) == grads


def test_G13_start_out_of_range() -> None:
    with pytest.raises(ValueError, match="start="):
        SoftThreshold(0.0)
