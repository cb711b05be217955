"""G7 and G8: no optimizer brings a weight back, and what optimizers remember of kept weights stays as it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import optim

from lightning_prune import Pruner
from lightning_prune.schedule import OneShot, Polynomial
from tests.helpers import backward, grad_of, mlp, same, train, zeros

FORMS: dict[str, dict[str, Any]] = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], list[str]]] = {
    "sgd": (lambda p, **o: optim.SGD(p, lr=0.05, **o), ["loop", "foreach", "fused"]),
    "momentum": (lambda p, **o: optim.SGD(p, lr=0.05, momentum=0.9, **o), ["loop", "foreach", "fused"]),
    "nesterov": (lambda p, **o: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, **o), ["loop", "foreach", "fused"]),
    "adam": (lambda p, **o: optim.Adam(p, lr=0.01, amsgrad=True, **o), ["loop", "foreach", "fused"]),
    "adamw": (lambda p, **o: optim.AdamW(p, lr=0.01, **o), ["loop", "foreach", "fused"]),
    "rmsprop": (lambda p, **o: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True, **o), ["loop", "foreach"]),
    "adagrad": (
        lambda p, **o: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1, **o),
        ["loop", "foreach", "fused"],
    ),
    "nadam": (lambda p, **o: optim.NAdam(p, lr=0.01, **o), ["loop", "foreach"]),
    "adadelta": (lambda p, **o: optim.Adadelta(p, lr=1.0, **o), ["loop", "foreach"]),
    "radam": (lambda p, **o: optim.RAdam(p, lr=0.01, **o), ["loop", "foreach"]),
}
CASES = [(name, form) for name, (_, forms) in OPTIMIZERS.items() for form in forms]


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_G7_fifty_steps(name: str, form: str, weight_decay: float) -> None:
    model = mlp()
    decayed, plain = [p for p in model.parameters() if p.dim() > 1], [p for p in model.parameters() if p.dim() < 2]
    param_groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = OPTIMIZERS[name][0](param_groups, **FORMS[form])
    pruner = Pruner(Polynomial(0.75, begin_step=5, end_step=40, pruning_frequency=7))
    pruner.attach(model, total_steps=50)
    first = model.get_parameter("0.weight").detach().clone()

    def look(step: int, updated: bool) -> None:
        for weight in pruner.masks.values():
            assert not weight.parameter[~weight.mask].any(), f"a weight came back at step {step}"
            assert weight.parameter[weight.mask].all()

    train(model, pruner, optimizer, range(50), look)
    assert zeros(decayed) == 108
    kept = pruner.masks["0.weight"].mask
    assert (model.get_parameter("0.weight")[kept] != first[kept]).float().mean() > 0.9, "what is kept trains on"


@pytest.mark.parametrize("update_passes_optimizers", [False, True])
def test_G7_several_optimizers_that_step_in_turn(update_passes_optimizers: bool) -> None:
    model = mlp()
    optimizers = [optim.Adam(model[0].parameters(), lr=0.05), optim.SGD(model[3].parameters(), lr=0.1, momentum=0.9)]
    pruner = Pruner(Polynomial(0.75, 0, 20, 4))
    pruner.attach(model)
    for step in range(30):
        backward(model, step)
        optimizer = optimizers[step % 2]
        others = "3.weight" if step % 2 == 0 else "0.weight"
        other_grad = grad_of(model, others).clone()
        pruner.before_step(optimizer)
        assert torch.equal(grad_of(model, others), other_grad), "not the other's gradients"
        optimizer.step()
        pruner.after_step(step + 1, optimizers if update_passes_optimizers else ())
        for weight in pruner.masks.values():
            assert torch.equal(weight.parameter == 0, ~weight.mask)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_G8_moments_of_the_newly_pruned_are_cleared_and_of_the_kept_untouched(name: str, form: str) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[name][0](model.parameters(), **FORMS[form])
    pruner = Pruner(OneShot(0.5, 3))
    pruner.attach(model)
    train(model, pruner, optimizer, range(2))
    backward(model, 2)
    pruner.before_step()
    optimizer.step()
    before = {p: {k: v.clone() if torch.is_tensor(v) else v for k, v in s.items()} for p, s in optimizer.state.items()}
    assert pruner.after_step(3, [optimizer])
    masks: dict[torch.Tensor, torch.Tensor] = {weight.parameter: weight.mask for weight in pruner.masks.values()}
    assert before.keys() == optimizer.state.keys()
    for parameter, state in optimizer.state.items():
        for key, now in state.items():
            was, mask = before[parameter][key], masks.get(parameter)
            if mask is not None and torch.is_tensor(now) and now.shape == mask.shape:
                assert not now[~mask].any(), key
                assert same(now[mask], was[mask])
            else:
                assert same(now, was)


def test_G8_an_update_that_prunes_nothing_clears_nothing() -> None:
    model = mlp()
    optimizer = optim.Adam(model.parameters())
    pruner = Pruner(Polynomial(0.5, 0, 8, 2, initial_sparsity=0.5))
    pruner.attach(model)
    train(model, pruner, optimizer, range(3))
    backward(model, 3)
    optimizer.step()  # without before_step: moments of pruned entries grow
    moment = optimizer.state[model.get_parameter("0.weight")]["exp_avg"]
    held = moment.clone()
    assert pruner.after_step(4, [optimizer])
    assert torch.equal(moment, held)


def test_G7_without_before_step_the_weights_are_zero_all_the_same() -> None:
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    pruner.after_step(0)
    for step in range(5):
        backward(model, step)
        optimizer.step()
        assert zeros([model.get_parameter("0.weight"), model.get_parameter("3.weight")]) < 72
        pruner.after_step(step + 1)
        assert zeros([model.get_parameter("0.weight"), model.get_parameter("3.weight")]) == 72
