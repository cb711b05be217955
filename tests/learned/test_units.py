"""Learned masks of whole units: where they act, one draw for all readers, and what stripping makes of them."""

from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer, distance
from lightning_prune.gate import HardConcrete, Sigmoid
from lightning_prune.learned.masked_units import MaskedUnits
from lightning_prune.mask_regularizer import ExpectedSparsity
from lightning_prune.schedule import Polynomial
from lightning_prune.shrink import shrink
from tests.coupling.architectures import ARCHITECTURES
from tests.learned.helpers import attached, factors_of, on, perceptron, scattered


@pytest.mark.parametrize("gate", [Sigmoid(), HardConcrete(start=0.5)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_G9_stripped_gives_what_evaluation_gave_and_shrunk_does_too(name: str, gate: Any) -> None:
    model, example = ARCHITECTURES[name].model(), ARCHITECTURES[name].example()
    plain = answer(model, example)
    masks = attached(model, example, gate=gate)
    scattered(masks)
    evaluated = answer(model, example)
    assert distance(plain, evaluated)[1] > 1e-3  # something is masked
    masks.strip()
    assert distance(evaluated, answer(model, example))[1] <= 1e-5
    shrunk = shrink(model, example)
    assert shrunk.report.parameters[1] < shrunk.report.parameters[0]
    assert distance(evaluated, answer(shrunk.model, example))[1] <= 1e-4
    for inputs in (make() for make in ARCHITECTURES[name].others):
        assert distance(answer(model, inputs), answer(shrunk.model, inputs))[1] <= 1e-4


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.ELU()])
def test_masks_are_on_the_outputs_after_norm_and_activation_one_draw_an_example(activation: nn.Module) -> None:
    model = perceptron(activation).train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(2, 6))
    here, x = on(masks), torch.randn(7, 6)
    out = model(x)
    by_units = {m.shape[1]: m for m in factors_of(here).values()}
    assert {m.shape for m in by_units.values()} == {(7, 8), (7, 5)}
    hidden = twin[1](twin[0](x)) * by_units[8]
    hidden = twin[4](twin[3](twin[2](hidden))) * by_units[5]
    assert torch.allclose(out, twin[5](hidden), atol=1e-6)


def test_all_readers_of_a_group_get_the_same_draw_and_the_next_forward_another() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.other = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).exp()
            return torch.cat([self.one(x), self.other(x)], 1)

    model = Two().train()
    masks = attached(model, torch.zeros(2, 4))
    seen: list[Tensor] = []
    for layer in (model.one, model.other):
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    x = torch.randn(5, 4)
    model(x), model(x)  # pyright: ignore[reportUnusedExpression]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[0], seen[2])
    masks.strip()


def test_expected_sparsity_is_that_of_independent_draws() -> None:
    model = perceptron(nn.ReLU())
    schedule = Polynomial(0.5, 0, 10, 1)
    masks = attached(model, torch.zeros(2, 6), schedule=schedule, mask_regularizer=ExpectedSparsity(1.0))
    here = on(masks)
    units = cast(MaskedUnits, here._sites)._units
    p = [v.detach() for v in here.logits.probabilities()]
    expected = float(units.zeros([(1 - q).sum() for q in p]) / units.size)
    generator = torch.Generator().manual_seed(0)
    draws = [
        units.zeros([float((torch.rand(q.shape, generator=generator) >= q).sum()) for q in p]) / units.size
        for _ in range(4000)
    ]
    assert sum(draws) / len(draws) == pytest.approx(expected, abs=0.01)


def test_at_least_one_unit_of_each_group_stays() -> None:
    model = perceptron(nn.ReLU())
    masks = attached(model, torch.zeros(2, 6))
    here = on(masks)
    with torch.no_grad():
        for logits in here.logits.values:
            logits -= 3.0
    best = [int(logits.argmax()) for logits in here.logits.values]
    here._hard.outdate()
    here.settle()
    assert [keep.nonzero().flatten().tolist() for keep in here._hard.keeps] == [[b] for b in best]
    masks.strip()
    assert bool(torch.isfinite(model(torch.randn(4, 6))).all())


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_G16_a_copy_reads_through_the_same_masks_and_a_pickle_through_none(how: str) -> None:
    model = perceptron(nn.ReLU()).eval()
    x = torch.randn(5, 6)
    plain = model(x)
    masks = attached(model, torch.zeros(2, 6))
    if how == "deepcopy":
        assert torch.equal(copy.deepcopy(model)(x), model(x))
    else:
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), plain)
    masks.strip()
    assert not any(m._forward_pre_hooks for m in model.modules())
