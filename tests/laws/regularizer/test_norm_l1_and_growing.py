"""The regularizers that ask what a tensor is for: norms alone, and what the next update takes."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.regularizer import Growing, Moment, NormL1
from lightning_prune.schedule import Polynomial
from tests.laws.regularizer.gradients import draw_weight, gradient


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
