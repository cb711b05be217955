"""Learned masks on single weights: where they act, and what is left of them."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer, distance
from lightning_prune.gate import HardConcrete, Sigmoid, SoftThreshold
from lightning_prune.mask_regularizer import Binarizer, ExpectedSparsity, MeanProbability
from lightning_prune.pattern import Element
from tests.coupling.architectures import ARCHITECTURES
from tests.guarantees.helpers import RAMP, Net, adamw, assert_plain, bits, fit
from tests.learned.helpers import attached_to_weights, engine, learned, logits_of, on, scattered, uniforms_of


@pytest.mark.parametrize("gate", [Sigmoid(), HardConcrete(start=0.5), SoftThreshold(0.05)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_G9_stripped_gives_what_evaluation_gave_on_every_architecture(name: str, gate: Any) -> None:
    model, example = ARCHITECTURES[name].model(), ARCHITECTURES[name].example()
    plain = answer(model, example)
    masks = attached_to_weights(model, gate=gate)
    scattered(masks)
    evaluated = answer(model, example)
    assert distance(plain, evaluated)[1] > 1e-3  # something is masked
    report = masks.strip()
    assert distance(evaluated, answer(model, example))[1] <= 1e-5
    assert report.zeros == sum(int((model.get_parameter(w.name) == 0).sum()) for w in report.weights) > 0
    assert_plain(model)


def test_in_training_the_layer_computes_with_masked_weights_and_the_parameter_stays() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).train()
    twin = copy.deepcopy(model)
    masks = attached_to_weights(model)
    x = torch.randn(5, 6)
    out = model(x)
    assert [id(model[0].weight), type(model[0].weight)] == [id(next(model.parameters())), nn.Parameter]
    here = on(masks)
    drawn = zip(here.logits.values, uniforms_of(here), strict=True)
    first, second = (here.logits.gates[0].sample(v, u, 0.0)[0] for v, u in drawn)
    hidden = torch.tanh(nn.functional.linear(x, twin[0].weight * first.view(8, 6), twin[0].bias))
    found = nn.functional.linear(hidden, twin[2].weight * second.view(3, 8), twin[2].bias)
    assert torch.allclose(out, found, atol=1e-6)
    out.square().sum().backward()
    assert all(v.grad is not None and bool(v.grad.any()) for v in here.logits.values)
    assert model[0].weight.grad is not None


@pytest.mark.parametrize("layer", [nn.LSTM(4, 5, 2, batch_first=True), nn.GRU(4, 5), nn.MultiheadAttention(4, 2)])
def test_layers_that_use_their_weights_in_their_own_way(layer: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4)

    def call() -> Tensor:
        return layer(x, x, x)[0] if isinstance(layer, nn.MultiheadAttention) else layer(x)[0]

    masks = attached_to_weights(layer.train(), gate=Sigmoid(b=5.0))
    plain = call()
    plain.square().sum().backward()
    assert all(v.grad is not None and bool(v.grad.any()) for v in on(masks).logits.values)
    scattered(masks)
    layer.eval()
    evaluated = call()
    masks.strip()
    assert torch.allclose(evaluated, call(), atol=1e-6)
    assert not torch.allclose(plain, evaluated)


def test_an_interrupt_in_a_forward_leaves_no_shadow_once_the_masks_are_off() -> None:
    class Interrupted(nn.LSTM):
        def forward(self, input: Any, hx: Any = None) -> Any:
            super().forward(input, hx)
            raise KeyboardInterrupt

    layer = Interrupted(4, 5, 2).train()
    masks = attached_to_weights(layer)
    with pytest.raises(KeyboardInterrupt):
        layer(torch.randn(3, 2, 4))
    masks.strip(resumable=True)
    assert all(layer.get_parameter(name) is getattr(layer, name) for name, _ in layer.named_parameters())
    assert all(isinstance(weight, nn.Parameter) for weight in layer._flat_weights)
    copy.deepcopy(layer)


def test_an_optimizer_without_masked_weights_steps() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    masks = attached_to_weights(model)
    model(torch.randn(2, 6)).sum().backward()
    logits = logits_of(masks)
    masks.before_step(torch.optim.SGD([model[0].bias], 0.1))
    assert all(torch.equal(a, b) for a, b in zip(logits, on(masks).logits.values, strict=True))


@pytest.mark.parametrize("how", ["error", "deepcopy", "pickle"])
def test_no_shadow_is_left_by_an_error_and_none_in_a_pickle(how: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(4, 6)
    plain = model(x)
    attached_to_weights(model)
    masked = model(x)
    if how == "error":
        with pytest.raises(RuntimeError, match="shapes"):
            model(torch.randn(4, 7))
    elif how == "deepcopy":
        assert torch.equal(copy.deepcopy(model)(x), masked)
    else:
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), plain)
    assert not any("weight" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    "ideas",
    [
        {"mask_regularizer": Binarizer(None)},
        {"gate": HardConcrete(), "mask_regularizer": ExpectedSparsity(5.0)},
        {"gate": SoftThreshold(), "mask_regularizer": None},
    ],
)
def test_G3_a_schedule_is_met_to_one_weight(ideas: dict[str, Any]) -> None:
    model, callback = Net(adamw), learned(schedule=RAMP, pattern=Element(), **ideas)
    layout = list(model.state_dict())
    seen: dict[int, int] = {}

    def look(trainer: Any) -> None:
        assert list(model.state_dict()) == layout
        if callback.pruner.last_update == trainer.global_step:
            seen[trainer.global_step] = callback.pruner.report().zeros

    model.after_batch.append(look)
    fit(model, callback, max_epochs=4)
    assert callback.report is not None
    assert seen == {step: round(RAMP.sparsity(step) * callback.report.size) for step in (3, 6, 9, 12, 13)}
    assert callback.report.zeros == round(0.8 * callback.report.size)
    assert_plain(model, callback=callback)


def test_without_a_schedule_the_weights_above_t_stay() -> None:
    model, callback = Net(adamw), learned(pattern=Element())
    fit(model, callback, max_epochs=4)
    for name, p in engine(callback).probabilities().items():
        weight = model.get_parameter(name)
        assert torch.equal(weight.flatten() != 0, p > 0.5)
    start = bits(Net(adamw))
    assert any(not torch.equal(start[name], value) for name, value in bits(model).items())


def test_thresholds_train_apart_and_stay_between_kept_and_gone() -> None:
    model, callback = Net(adamw), learned(schedule=RAMP, pattern=Element(), gate=SoftThreshold(), mask_regularizer=None)
    apart: list[float] = []

    def look(trainer: Any) -> None:
        here = on(engine(callback))
        if not here.finished and here.step == trainer.global_step:
            values = [float(v.detach()) for v in here.logits.values]
            apart.append(max(values) - min(values))
            for number, weight in enumerate(here.masks.values()):
                above = weight.parameter.detach().abs() > math.exp(values[number])
                assert torch.equal(above, weight.mask)

    model.after_batch.append(look)
    fit(model, callback, max_epochs=4)
    assert apart[0] < apart[-1] > 0.01
    assert callback.report is not None
    assert len({w.threshold for w in callback.report.weights}) == len(callback.report.weights)
    for name, p in engine(callback).probabilities().items():
        assert torch.equal(p, (model.get_parameter(name) != 0).flatten().float())


def test_thresholds_without_a_schedule_rise_by_their_regularizer() -> None:
    model = Net(adamw)
    ideas = {"gate": SoftThreshold(0.02), "mask_regularizer": MeanProbability(1.0), "lr": 0.05}
    callback = learned(pattern=Element(), **ideas)
    fit(model, callback, max_epochs=6)
    assert callback.report is not None
    assert 0.1 < callback.report.sparsity < 1.0
    for name, p in engine(callback).probabilities().items():
        assert torch.equal(model.get_parameter(name).flatten() != 0, p > 0.5)
