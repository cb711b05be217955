"""Mean probability and expected sparsity by hand, and arguments of mask regularizers that are out of range."""

from typing import Any

import pytest

from lightning_prune.mask_regularizer import Binarizer, ExpectedSparsity, MeanProbability
from tests.laws.mask_regularizer.probabilities import probabilities


def test_mean_probability_and_expected_sparsity_by_hand() -> None:
    p = probabilities([0.2, 0.6])
    assert float(MeanProbability(3.0)(p, p.sum(), 0.0).detach()) == pytest.approx(1.2)
    assert float(ExpectedSparsity(3.0)(p, (1 - p).mean(), 0.5).detach()) == pytest.approx(3.0 * 0.1**2)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Binarizer(tau=1.1), "tau"),
        (lambda: Binarizer(q=0.5), "q="),
        (lambda: Binarizer(strength=-1.0), "strength"),
        (lambda: MeanProbability(-0.1), "strength"),
        (lambda: ExpectedSparsity(float("inf")), "strength"),
    ],
)
def test_G13_arguments_out_of_range(make: Any, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        make()
