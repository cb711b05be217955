"""Laws of every regrowth under conf/pruner/regrowth."""

import math
from typing import Any

import pytest
import torch

from lightning_prune.regrowth import Gradient
from tests.helpers import ideas

REGROWTHS = pytest.mark.parametrize("regrowth", ideas("regrowth"))


@REGROWTHS
def test_a_share_of_what_is_left_at_every_step_and_none_before_the_first(regrowth: Any) -> None:
    resolved = regrowth.resolve(200)
    shares = [resolved.share(step) for step in range(400)]
    assert all(0.0 <= share < 1.0 for share in shares)
    assert shares[0] == 0.0
    assert max(shares) > 0.0
    assert resolved.share(400) == 0.0, "at the end of the run nothing returns"
    assert resolved.resolve(77) == resolved, "steps keep their meaning"
    assert type(regrowth.window) is int
    assert regrowth.window >= 1


@REGROWTHS
@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 3, 3), (1,), ()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_worth_an_entry_each_by_itself_and_inputs_unchanged(
    regrowth: Any, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, gradient = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    copies = weight.clone(), gradient.clone()
    worth = regrowth(weight, gradient)
    assert worth.shape == shape
    assert worth.is_floating_point()
    assert bool((worth >= 0).all())
    assert torch.equal(weight, copies[0])
    assert torch.equal(gradient, copies[1])
    flat = regrowth(weight.reshape(-1), gradient.reshape(-1))
    assert torch.equal(flat.view(shape), worth)
    for n in range(flat.numel()):
        assert torch.equal(regrowth(weight.reshape(-1)[n : n + 1], gradient.reshape(-1)[n : n + 1]), flat[n : n + 1])


@REGROWTHS
def test_what_has_no_gradient_does_not_return(regrowth: Any) -> None:
    assert not regrowth(torch.zeros(3, 4), torch.zeros(3, 4)).any()


@REGROWTHS
def test_G13_a_share_of_the_run_is_refused_until_the_length_is_known(regrowth: Any) -> None:
    with pytest.raises(ValueError, match="how many optimizer steps the run takes is not known"):
        regrowth.resolve(None)
    with pytest.raises(ValueError, match=r"resolve\(total_steps\)"):
        regrowth.share(3)


@pytest.mark.parametrize(("fraction", "until", "step"), [(0.3, 100, 1), (0.3, 100, 50), (0.9, 7, 6), (0.5, 1000, 333)])
def test_gradient_falls_along_the_cosine_of_rigl(fraction: float, until: int, step: int) -> None:
    wanted = fraction / 2 * (1 + math.cos(step * math.pi / until))
    assert Gradient(fraction, until).share(step) == pytest.approx(wanted, rel=1e-12)
    assert Gradient(fraction, until).share(until) == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "fraction=0.0 must be"),
        ({"fraction": 1}, "fraction=1 must be"),
        ({"fraction": True}, "fraction=True must be"),
        ({"fraction": float("nan")}, "fraction=nan must be"),
        ({"until": 1.5}, "until=1.5 is a float"),
        ({"until": -3}, "until=-3 must not"),
        ({"until": 0}, "until=0 lets nothing return"),
        ({"window": 0}, "window=0 must be"),
        ({"window": None}, "window=None must be"),
    ],
)
def test_G13_what_is_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gradient(**options)
