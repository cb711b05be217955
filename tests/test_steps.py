"""Scalars of numpy and torch are the numbers they show, wherever a sparsity or a position is given."""

from typing import Any

import numpy as np
import pytest
import torch

from lightning_prune import PruningCallback, Targets
from lightning_prune.schedule import Geometric, Iterative, OneShot, Polynomial
from lightning_prune.steps import plain

NINE_TENTHS = [np.float16(0.9), np.float32(0.9), np.float64(0.9), torch.tensor(0.9), torch.tensor(0.9).bfloat16()]


@pytest.mark.parametrize("number", NINE_TENTHS, ids=lambda n: str(n.dtype))
def test_a_float_of_any_width_is_the_decimal_it_was_made_from(number: Any) -> None:
    expected = 0.9 if number.dtype != torch.bfloat16 else float(f"{float(number):.3g}")
    assert type(plain(number)) is float
    assert plain(number) == expected
    assert PruningCallback(number).pruner.schedule == PruningCallback(expected).pruner.schedule
    assert Polynomial(number, number, 1.0, number) == Polynomial(expected, expected, 1.0, expected)
    assert Geometric(number, 0, 9, 1, power=number) == Geometric(expected, 0, 9, 1, power=expected)
    assert Targets(sparsity={"w": number}).sparsity == {"w": expected}


@pytest.mark.parametrize("number", [np.int64(7), np.int32(7), torch.tensor(7)], ids=lambda n: str(n.dtype))
def test_an_int_is_a_number_of_steps(number: Any) -> None:
    assert type(plain(number)) is int
    assert OneShot(0.5, number).resolve(100) == OneShot(0.5, 7)
    assert Iterative(0.5, number, 20, number) == Iterative(0.5, 7, 20, 7)


@pytest.mark.parametrize(
    "wrong", [np.float32(1.5), torch.tensor(-0.1), torch.tensor([0.5]), np.array([0.5]), np.bool_(1)]
)
def test_what_is_no_share_is_refused_as_ever(wrong: Any) -> None:
    with pytest.raises(ValueError, match="final_sparsity="):
        OneShot(wrong, 3)
    with pytest.raises(ValueError, match="PruningCallback"):
        PruningCallback(wrong)
