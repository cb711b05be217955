"""The engine in the pure-PyTorch loop: how many, when, and what the masks do to a model."""

import copy
import io
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.criterion.random import Random
from lightning_prune.pattern.block import Block
from lightning_prune.regularizer.l1 import L1
from lightning_prune.regularizer.l2 import L2
from lightning_prune.report import percent
from lightning_prune.schedule.geometric import Geometric
from lightning_prune.schedule.one_shot import OneShot
from lightning_prune.schedule.polynomial import Polynomial
from lightning_prune.scope.uniform import Uniform
from lightning_prune.targets import Targets
from tests.helpers import FLOATS, backward, conv_net, grad_of, ideas, masks_of, mlp, same, train, zeros


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def pruned_once(model: nn.Module, sparsity: float, **options: Any) -> Pruner:
    pruner = Pruner(OneShot(sparsity, 0), **options)
    pruner.attach(model)
    pruner.after_step(0)
    return pruner


class Bare(nn.Module):
    """A few weights and nothing else."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)


FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda t: t,
    "ties": lambda t: t.round(),
    "zeros": lambda t: t * 0.0,
    "constant": lambda t: t * 0 - 0.5,
}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3),
    sparsity=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)),
    layerwise=st.booleans(),
    reversible=st.booleans(),
)
@settings(max_examples=15)
def test_G3_masks_have_exactly_the_zeros_asked_for(
    fill: str, dtype: torch.dtype, sizes: list[tuple[int, int]], sparsity: float, layerwise: bool, reversible: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    model = Bare(*[FILLS[fill](torch.randn(size, generator=generator)).to(dtype) for size in sizes])
    pruner = pruned_once(model, sparsity, reversible=reversible, **({"scope": Uniform()} if layerwise else {}))
    masked = [weight.mask for weight in pruner.masks.values()]
    numbers = [int((~mask).sum()) for mask in masked]
    if layerwise:
        assert numbers == [round(sparsity * mask.numel()) for mask in masked]
    assert layerwise or sum(numbers) == round(sparsity * sum(mask.numel() for mask in masked))
    for mask, weight in zip(masked, model.weights, strict=True):
        assert not weight[~mask].any()
        assert weight.dtype == dtype
        assert fill in ("zeros", "ties") or weight[mask].all()


@pytest.mark.parametrize(
    "schedule",
    [
        Polynomial(0.9, begin_step=3, end_step=20, pruning_frequency=4),
        Geometric(0.97, begin_step=0, end_step=25, pruning_frequency=7, initial_sparsity=0.2),
        OneShot(0.6, 9),
    ],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("reversible", [False, True])
def test_G4_G5_replay_of_every_update(schedule: Any, reversible: bool) -> None:
    model = mlp()
    pruner = Pruner(schedule, reversible=reversible)
    pruner.attach(model, total_steps=30)
    updates: list[int] = []
    before = masks_of(pruner)
    weights = [model.get_parameter("0.weight"), model.get_parameter("3.weight")]

    def look(step: int, updated: bool) -> None:
        nonlocal before
        now = masks_of(pruner)
        if updated:
            updates.append(step)
        assert updated == (schedule.last_update(step) == step)
        due = schedule.last_update(step)
        asked = 0.0 if due is None else schedule.sparsity(due)
        assert zeros(weights) == sum(int((~mask).sum()) for mask in now.values()) == round(asked * 144)
        assert updated or same(now, before), "masks change at updates alone"
        if not reversible:
            assert not any((now[name] & ~before[name]).any() for name in now)
        report = pruner.report()
        assert report.sparsity == round(asked * 144) / 144
        assert report.target_sparsity == pytest.approx(asked)
        assert report.step == pruner.last_update == due
        before = now

    train(model, pruner, sgd(model), range(30), look)
    assert updates == sorted({step for step in range(31) if schedule.last_update(step) == step})
    assert zeros(weights) == round(schedule.final_sparsity * 144)


def test_G17_a_step_may_jump_and_may_come_twice() -> None:
    schedule = Polynomial(0.9, begin_step=2, end_step=20, pruning_frequency=5)
    model, jumped = mlp(), mlp()
    one, other = Pruner(schedule), Pruner(schedule)
    one.attach(model)
    other.attach(jumped)
    updated = {step: [one.after_step(step) for _ in range(2)] for step in (0, 1, 2, 3, 9, 10, 500)}
    assert [step for step, (first, _) in updated.items() if first] == [2, 9, 500]
    assert not any(again for _, again in updated.values())
    assert other.after_step(9)
    assert other.report().target_sparsity == schedule.sparsity(7)
    assert (one.last_update, other.last_update) == (20, 7)
    assert not one.after_step(3), "an older step is no update"
    assert one.report().zeros == round(0.9 * 144)


@pytest.mark.parametrize("pattern", ideas("pattern"))
@pytest.mark.parametrize("criterion", ideas("criterion"))
def test_G5_masks_are_monotone_and_the_pruned_stay_zero(pattern: Any, criterion: Any) -> None:
    model = conv_net()
    pruner = Pruner(Polynomial(0.8, 0, 9, 3), criterion=criterion, pattern=pattern)
    pruner.attach(model)
    generator = torch.Generator().manual_seed(1)
    gone = {name: ~mask for name, mask in masks_of(pruner).items()}
    for step in range(10):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        pruner.after_step(step)
        for name, weight in pruner.masks.items():
            assert not (weight.mask & gone[name]).any()
            assert torch.equal(weight.parameter == 0, ~weight.mask)
            gone[name] = ~weight.mask


def test_G5_a_reversible_weight_returns_with_its_dense_value() -> None:
    model = Bare(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    (weight,) = model.weights
    pruner = Pruner(Polynomial(0.5, 0, 20, 10, initial_sparsity=0.5), reversible=True)
    pruner.attach(model)
    pruner.after_step(0)
    assert weight.tolist() == [[4.0, 3.0, 0.0, 0.0]]
    with torch.no_grad():
        weight.copy_(torch.tensor([[4.0, 0.5, 77.0, 77.0]]))  # what gets into a pruned entry does not count
    assert not pruner.after_step(5)
    assert weight.tolist() == [[4.0, 0.5, 0.0, 0.0]]
    assert pruner.after_step(10)
    assert weight.tolist() == [[4.0, 0.0, 2.0, 0.0]]
    assert pruner.changed == 0.5


def test_G5_without_reversible_it_does_not() -> None:
    model = Bare(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    (weight,) = model.weights
    pruner = Pruner(Polynomial(0.5, 0, 20, 10, initial_sparsity=0.5))
    pruner.attach(model)
    pruner.after_step(0)
    with torch.no_grad():
        weight.copy_(torch.tensor([[4.0, 0.5, 77.0, 77.0]]))
    assert pruner.after_step(10)
    assert weight.tolist() == [[4.0, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize("regularizer", [None, L2(0.0)])
@pytest.mark.parametrize("reversible", [False, True])
def test_G12_a_dense_schedule_changes_not_one_bit(regularizer: Any, reversible: bool) -> None:
    finals = []
    for prune in (True, False):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        with torch.no_grad():
            model.get_parameter("0.weight")[:2] = -0.0
        torch.manual_seed(9)
        if prune:
            pruner = Pruner(Polynomial(0.0, 0, 10, 2), regularizer=regularizer, reversible=reversible)
            pruner.attach(model, total_steps=3)
            train(model, pruner, optimizer, range(12))
            pruner.strip()
        else:
            for step in range(12):
                backward(model, step)
                optimizer.step()
        finals.append([model.state_dict(), optimizer.state_dict()["state"], torch.get_rng_state()])
    assert same(*finals)


def test_G1_no_criterion_moves_the_users_generators() -> None:
    torch.manual_seed(4)
    state = torch.get_rng_state()
    pruned_once(conv_net(), 0.5, criterion=Random())
    torch.manual_seed(4)
    torch.manual_seed(4)
    assert torch.equal(torch.get_rng_state(), state)
    model = conv_net()
    state = torch.get_rng_state()
    pruner = pruned_once(model, 0.5, criterion=Random())
    pruner.strip()
    assert torch.equal(torch.get_rng_state(), state)


class Tied(nn.Module):
    """Two layers that share a weight, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.own = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 7)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.own(self.second(self.first(inputs)))


def test_G15_tied_weights_stay_tied_and_count_once() -> None:
    model = Tied()
    pruner = pruned_once(model, 0.5)
    assert pruner.masks["first.weight"] is pruner.masks["second.weight"]
    assert list(pruner.masks) == ["first.weight", "own.weight"]
    assert pruner.report().size == 36 + 42
    assert pruner.report().parameters == sum(p.numel() for p in model.parameters())
    assert zeros([model.first.weight, model.own.weight]) == 39
    assert model.first.weight_mask is model.second.weight_mask
    report = pruner.strip()
    assert model.second.weight is model.first.weight
    assert report.zeros == 39
    assert not hasattr(model.first, "weight_mask")
    assert not hasattr(model.second, "weight_mask")


def test_both_weights_of_an_lstm_layer_are_ranked_together() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(4, 6, num_layers=2)
    with torch.no_grad():
        model.get_parameter("weight_ih_l0").mul_(10.0)
    sizes = {name: weight.numel() for name, weight in model.named_parameters() if "weight" in name}
    both = torch.cat([model.get_parameter(f"weight_{which}_l0").detach().flatten() for which in ("ih", "hh")]).abs()
    pruner = pruned_once(model, 0.5, scope=Uniform())
    gone = {name: int((~pruner.masks[name].mask).sum()) for name in sizes}
    for layer in ("l0", "l1"):
        pair = f"weight_ih_{layer}", f"weight_hh_{layer}"
        assert sum(gone[name] for name in pair) == round(0.5 * sum(sizes[name] for name in pair))
        assert float(pruner.masks[pair[0]].threshold) == float(pruner.masks[pair[1]].threshold)
    assert float(pruner.masks["weight_ih_l0"].threshold) == float(both.kthvalue(both.numel() // 2).values)
    assert gone["weight_ih_l0"] < 0.2 * sizes["weight_ih_l0"]


def test_sparsities_by_rule() -> None:
    model = conv_net()
    schedule = Polynomial(0.8, 0, 10, 2)
    pruner = Pruner(schedule, targets=Targets(sparsity={r"^0\.": 0.5, "5.weight": 0.0}))
    pruner.attach(model, total_steps=10)
    for step in (0, 4, 10):
        pruner.after_step(step)
        share = schedule.sparsity(step) / 0.8
        found = [int((~weight.mask).sum()) for weight in pruner.masks.values()]
        assert found == [round(270 * share * 0.5), round(630 * share * 0.8), 0]
    report = pruner.report()
    assert [weight.final_sparsity for weight in report.weights][::2] == [0.5, 0.0]
    assert report.final_sparsity == pytest.approx((0.5 * 270 + 0.8 * 630) / 3735)
    assert report.target_sparsity == report.final_sparsity


def test_G18_the_regularizers_gradient_is_the_one_by_hand_and_is_masked() -> None:
    model = mlp()
    pruner = pruned_once(model, 0.5, regularizer=L1(0.25))
    backward(model, 0)
    weight = model.get_parameter("0.weight")
    before, bias = (grad_of(model, name).clone() for name in ("0.weight", "0.bias"))
    mask = pruner.masks["0.weight"].mask
    pruner.before_step(grad_scale=8.0)
    torch.testing.assert_close(grad_of(model, "0.weight"), (before + 8.0 * 0.25 * weight.detach().sign()) * mask)
    assert torch.equal(grad_of(model, "0.bias"), bias)
    total = sum(
        float(w.detach().abs().sum()) for w in (model.get_parameter("0.weight"), model.get_parameter("3.weight"))
    )
    assert pruner.penalty == pytest.approx(0.25 * total)
    model.zero_grad()
    pruner.before_step()
    assert weight.grad is None, "without a loss there is no step to add to"
    model.get_parameter("3.weight").grad = torch.zeros(5, 12)
    pruner.before_step()
    torch.testing.assert_close(weight.grad, 0.25 * weight.detach().sign())


def test_G9_G19_strip_leaves_a_plain_model_with_the_same_outputs() -> None:
    model, twin = mlp(), mlp()
    pruner = Pruner(OneShot(0.75, 2))
    pruner.attach(model)
    train(model, pruner, sgd(model), range(4))
    inputs = torch.randn(9, 7)
    for training in (True, False):
        model.train(training)
        state = copy.deepcopy(model.state_dict())
        masked = model(inputs)
        model.load_state_dict(state)
        report = pruner.strip()
        assert torch.equal(model(inputs), masked)
        model.load_state_dict(state)
    assert [vars(module).keys() for module in model.modules()] == [vars(module).keys() for module in twin.modules()]
    twin.load_state_dict(model.state_dict(), strict=True)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in twin.named_parameters()]
    for weight in report.weights:
        assert weight.zeros == zeros([twin.get_parameter(weight.name)])
    assert report.zeros == 108
    assert not pruner.attached
    assert pruner.strip() == report, "twice is once"
    assert pruner.report() == report


def test_G19_the_report_is_json_and_agrees_with_itself() -> None:
    report = pruned_once(conv_net(), 0.7).strip()
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["sparsity"] == report.sparsity == report.zeros / report.size
    assert sum(weight["zeros"] for weight in plain["weights"]) == plain["zeros"] == round(0.7 * 3735)
    assert plain["prunable"] == sum(weight["size"] for weight in plain["weights"]) == 3735
    assert plain["weights"][0]["shape"] == [10, 3, 3, 3]
    assert set(plain["skipped"]) == {"0.bias", "2.bias", "3.weight", "3.bias", "5.bias"}
    scalars = report.scalars()
    assert scalars["sparsity"] == report.sparsity
    assert scalars["sparsity/0.weight"] == plain["weights"][0]["sparsity"]
    assert all(isinstance(value, float) for value in scalars.values())
    for text in (report.table(), report.plan()):
        assert "2.weight" in text
        assert "left whole, norm: 3.weight, 3.bias" in text
    assert f"{report.zeros:,}" in report.table()


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.00 %"),
        (1.0, "100.00 %"),
        (0.5, "50.00 %"),
        (0.999999, "99.9999 %"),
        (1e-7, "0.00001 %"),
        (0.98765, "98.77 %"),
    ],
)
def test_G19_a_share_is_told_apart_from_nothing_and_everything(share: float, text: str) -> None:
    assert percent(share) == text


def test_G16_copies_and_pickles_of_the_model_while_masks_are_on() -> None:
    model = mlp()
    pruner = pruned_once(model, 0.5)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    for other in copies:
        assert same(other.state_dict(), model.state_dict())
        assert other.state_dict().keys() == mlp().state_dict().keys()
        backward(other, 0)
        sgd(other).step()
        again = pruned_once(other, 0.8)
        assert again.strip().zeros == round(0.8 * 144)
    pruner.after_step(3)
    assert zeros([model.get_parameter("0.weight"), model.get_parameter("3.weight")]) == 72


def test_a_block_mask_of_a_channels_last_model() -> None:
    model = conv_net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = conv_net()
    for net in (model, plain):
        pruned_once(net, 0.6, pattern=Block(2, 3))
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    assert model.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
