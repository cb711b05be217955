"""The engine in the pure-PyTorch loop: how many weights are pruned, which and when."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.criterion import Random
from lightning_prune.regularizer import L2
from lightning_prune.schedule import Geometric, OneShot, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.targets import Targets
from tests.helpers import (
    FLOATS,
    backward,
    conv_net,
    criteria_without_norm,
    masks_of,
    mlp,
    patterns,
    pruned_once,
    same,
    sgd,
    train,
    zeros,
)


class Bare(nn.Module):
    """A few weights and nothing else."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)


NAMED = Targets(include=("weights",))
"""One with a single size above 1 is no weight by default."""

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
    options = {"scope": Uniform()} if layerwise else {}
    pruner = pruned_once(model, sparsity, reversible=reversible, targets=NAMED, **options)
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


@pytest.mark.parametrize("pattern", patterns())
@pytest.mark.parametrize("criterion", criteria_without_norm())
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
    pruner = Pruner(Polynomial(0.5, 0, 20, 10, initial_sparsity=0.5), reversible=True, targets=NAMED)
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
    pruner = Pruner(Polynomial(0.5, 0, 20, 10, initial_sparsity=0.5), targets=NAMED)
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
    model = conv_net()
    state = torch.get_rng_state()
    pruned_once(model, 0.5, criterion=Random()).strip()
    assert torch.equal(torch.get_rng_state(), state)


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
