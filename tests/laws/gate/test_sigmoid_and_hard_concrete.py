"""The random gates by hand: masks have the probability that is said, and rescaled ones the mean asked for."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.gate import HardConcrete, Sigmoid
from tests.laws.gate.draws import LOGITS, uniform


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
def test_the_mean_of_a_sigmoids_masks_is_its_probability(p: float) -> None:
    logits = torch.tensor([p], dtype=torch.float64).logit() / 5.0
    mean = Sigmoid().sample(logits, uniform(200_000, 1), 1.0).mean()
    assert float(mean) == pytest.approx(p, abs=5e-3)  # three deviations of the mean are 3.4e-3


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_hard_concrete_mask_is_above_0_with_its_probability(p: float) -> None:
    gate = HardConcrete(start=p)
    logits = gate.first(1, torch.Generator().manual_seed(0)).double()
    above = (gate.sample(logits, uniform(200_000, 1), 0.0) > 0).double().mean()
    assert float(above) == pytest.approx(float(gate.probability(logits)), abs=5e-3)
    assert float(gate.probability(logits)) == pytest.approx(p, abs=0.02)


def test_formulas_by_hand() -> None:
    logits, u = torch.tensor([0.2, -0.1], dtype=torch.float64), torch.tensor([[0.5, 0.6]], dtype=torch.float64)
    p = [1 / (1 + math.exp(-5 * v)) for v in (0.2, -0.1)]
    assert Sigmoid().probability(logits).tolist() == pytest.approx(p)
    m = [1 / (1 + math.exp(-200 * (q - w))) for q, w in zip(p, (0.5, 0.6), strict=True)]
    assert Sigmoid().sample(logits, u, 0.3).tolist()[0] == pytest.approx(m)
    annealed = Sigmoid(b_at_start=2.0)
    for progress, b in ((0.0, 2.0), (0.5, 20.0), (1.0, 200.0)):
        m = [1 / (1 + math.exp(-b * (q - w))) for q, w in zip(p, (0.5, 0.6), strict=True)]
        assert annealed.sample(logits, u, progress).tolist()[0] == pytest.approx(m)
    s = 1 / (1 + math.exp(-(math.log(0.5 / 0.5) + 0.2) / (2 / 3)))
    assert float(HardConcrete().sample(logits, u, 0.0)[0, 0]) == pytest.approx(min(1.0, s * 1.2 - 0.1))
    assert float(HardConcrete().probability(logits)[0]) == pytest.approx(
        1 / (1 + math.exp(-(0.2 - 2 / 3 * math.log(0.1 / 1.1))))
    )


@given(values=LOGITS, mean=st.floats(0.05, 0.95))
def test_rescaled_probabilities_have_the_mean_asked_for(values: list[float], mean: float) -> None:
    p = Sigmoid(mean=mean).probability(torch.tensor(values, dtype=torch.float64))
    assert float(p.mean()) == pytest.approx(mean)
    assert bool(((p >= 0) & (p <= 1)).all())


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Sigmoid, {"a": 0.0}),
        (Sigmoid, {"b": -1.0}),
        (Sigmoid, {"b_at_start": 0.0}),
        (Sigmoid, {"start": "constant"}),
        (Sigmoid, {"mean": 1.0}),
        (HardConcrete, {"beta": 0.0}),
        (HardConcrete, {"gamma": 0.1}),
        (HardConcrete, {"zeta": 1.0}),
        (HardConcrete, {"start": 1.0}),
    ],
)
def test_G13_arguments_out_of_range(kind: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        kind(**arguments)
