"""Numbers as arguments are given: scalars of numpy and torch are what they show, and what is none is refused."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from lightning_prune import DynamicGates, LearnedMasks, Pruner, PruningCallback, PruningRounds, Targets
from lightning_prune.callbacks import ResumePoint, Rewind
from lightning_prune.given import number, plain, whole
from lightning_prune.schedule import Geometric, Iterative, OneShot, Polynomial

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


BOUNDS: dict[str, dict[str, Any]] = {
    "a finite number": {},
    "a number of at least 0": {"least": 0},
    "a number above 0.5": {"above": 0.5},
    "a number of at most 1": {"most": 1},
    "a number below 1": {"below": 1},
    "a number in [0, 1]": {"least": 0, "most": 1},
    "a number in [0, 1)": {"least": 0, "below": 1},
    "a number in (0, 1]": {"above": 0, "most": 1},
    "a number in (0, 1)": {"above": 0, "below": 1},
}


@pytest.mark.parametrize("said", BOUNDS)
@pytest.mark.parametrize("value", [-1, 0, 0.0, 0.5, 0.75, 1, 2.5, np.float32(1.0), torch.tensor(2), np.int64(-3)])
def test_a_number_is_taken_within_its_bounds_alone(said: str, value: Any) -> None:
    bounds, found = BOUNDS[said], float(value)
    inside = bounds.get("least", -math.inf) <= found <= bounds.get("most", math.inf)
    if inside and bounds.get("above", -math.inf) < found < bounds.get("below", math.inf):
        number("x", value, **bounds)
    else:
        with pytest.raises(ValueError, match=f"^{re.escape(f'x={value!r} must be {said}, as ever')}$"):
            number("x", value, **bounds, hint=", as ever")


@pytest.mark.parametrize("value", ["1", None, True, np.bool_(1), [0.5], np.array([0.5]), 1j, math.nan, math.inf])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x=.* must be a finite number$"):
        number("x", value)
    with pytest.raises(ValueError, match=r"^x=.* must be an int of at least 1$"):
        whole("x", value, 1)
    with pytest.raises(ValueError, match=r"^x=.* must be an int$"):
        whole("x", value)


def test_an_int_may_have_a_bound_or_none() -> None:
    whole("x", -3)
    whole("x", 1, 1)
    with pytest.raises(ValueError, match=r"^x=0 must be an int of at least 1, in steps$"):
        whole("x", 0, 1, hint=", in steps")


HALF = Polynomial(0.5, 0, 10, 1)
WRONG: dict[str, Any] = {
    "lr='x'": lambda: LearnedMasks(lr="x"),  # pyright: ignore
    "task_share='x'": lambda: LearnedMasks(task_share="x"),  # pyright: ignore
    "threshold=nan": lambda: LearnedMasks(threshold=math.nan),
    "seed=1.5": lambda: LearnedMasks(seed=1.5),  # pyright: ignore
    "strength='x'": lambda: DynamicGates(HALF, strength="x"),  # pyright: ignore
    "lr=True": lambda: DynamicGates(HALF, lr=True),
    "seed='x'": lambda: DynamicGates(HALF, seed="x"),  # pyright: ignore
    "reversible='no'": lambda: Pruner(HALF, reversible="no"),  # pyright: ignore
    "shrink=0.5": lambda: PruningCallback(0.5, shrink=0.5),  # pyright: ignore
    "after_last='no'": lambda: Rewind(0, after_last="no"),  # pyright: ignore
    "seed=None": lambda: Rewind("init", seed=None),  # pyright: ignore
    "share='x'": lambda: ResumePoint(".", share="x"),  # pyright: ignore
    "tolerance='x'": lambda: PruningRounds(0.9, tolerance="x"),  # pyright: ignore
    "seed='y'": lambda: PruningRounds(0.9, seed="y"),  # pyright: ignore
    "factor='x'": lambda: PruningRounds(["x"]),  # pyright: ignore
    "bins='x'": lambda: PruningRounds(0.9, bins="x"),  # pyright: ignore
    "schedule=2": lambda: PruningRounds(0.9, schedule=2),  # pyright: ignore
    "sparsity='x'": lambda: Targets(sparsity="x"),  # pyright: ignore
}


@pytest.mark.parametrize("said", WRONG)
def test_it_is_refused_when_a_callback_or_a_pruner_is_made(said: str) -> None:
    with pytest.raises(ValueError, match=rf"^{said} must"):
        WRONG[said]()
