"""Laws of every random gate under conf/pruner/gate; what single ones compute is in tests/laws/gate."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.gate import Sigmoid
from tests.helpers import ideas
from tests.laws.gate.draws import LOGITS, uniform

# Learned thresholds (gate/test_soft_threshold.py) have one logit a tensor and no draws.
GATES = pytest.mark.parametrize("gate", [case for case in ideas("gate") if hasattr(case.values[0], "sample")])


@GATES
def test_first_logits_are_one_a_unit_and_follow_the_generator(gate: Any) -> None:
    one, same, other = (gate.first(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (50,)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    p = gate.probability(one)
    assert 0.0 < float(p.min()) <= float(p.max()) < 1.0


@GATES
@given(values=LOGITS, progress=st.floats(0, 1), seed=st.integers(0, 50))
def test_probabilities_and_masks_are_shares_that_rise_with_the_logit(
    gate: Any, values: list[float], progress: float, seed: int
) -> None:
    logits = torch.tensor(sorted(values), dtype=torch.float64)
    p = gate.probability(logits)
    u = uniform(7, 1, seed=seed).expand(7, len(values))
    m = gate.sample(logits, u, progress)
    assert m.shape == u.shape
    for found in (p, m, gate.settled(logits)):
        assert bool(((found >= 0) & (found <= 1)).all())
        assert bool((found.diff(dim=-1) >= -1e-12).all())


@GATES
def test_gradients_against_finite_differences(gate: Any) -> None:
    gate = Sigmoid(b=20.0) if isinstance(gate, Sigmoid) else gate  # steps of a steeper one are too fine for differences
    logits = torch.tensor([-0.4, 0.0, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate.probability, logits)
    assert torch.autograd.gradcheck(lambda v: gate.sample(v, uniform(5, 3), 0.5), logits)
