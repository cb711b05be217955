"""An optimizer that leaves zeros alone is trusted and looked at; behind all others weights are masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.masks import steps
from lightning_prune.masks.masked_weight import MaskedWeight
from lightning_prune.masks.steps import leaves_zeros
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets

SGD, AdamW = torch.optim.SGD, torch.optim.AdamW
WEIGHTS = ("0.weight", "2.weight")


class Noisy(AdamW):
    """Adds something to all parameters."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(1e-3)


class Loop:
    """A training loop of one's own, with a pruner that has pruned."""

    def __init__(self, make: Callable[[Any], torch.optim.Optimizer], schedule: Any = None) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
        self.pruner = Pruner(schedule or OneShot(0.8, 0))
        self.pruner.attach(self.net)
        self.optimizer = make(self.net.parameters())
        self.steps = 0
        self.pruner.update(0)

    def step(self, between: Callable[[], None] = lambda: None) -> None:
        torch.manual_seed(self.steps)
        self.optimizer.zero_grad()
        self.net(torch.randn(8, 12)).square().mean().backward()
        self.pruner.before_step(self.optimizer)
        between()
        self.optimizer.step()
        self.steps += 1
        self.pruner.stepped(self.optimizer)
        self.pruner.update(self.steps, [self.optimizer])

    @property
    def alive(self) -> int:
        masks = self.pruner.masks.values()
        return sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to weights behind a step: 'look' or 'mask', of how many."""
    said: list[str] = []
    alive, apply_all = steps.alive, steps.apply_all

    def look(weights: list[MaskedWeight]) -> list[MaskedWeight]:
        said.append(f"look {len(weights)}")
        return alive(weights)

    def mask(weights: list[MaskedWeight]) -> None:
        said.append(f"mask {len(weights)}")
        apply_all(weights)

    monkeypatch.setattr(steps, "alive", look)
    monkeypatch.setattr(steps, "apply_all", mask)
    return said


@pytest.mark.parametrize("make", [lambda p: SGD(p, 0.1, momentum=0.9), lambda p: AdamW(p, 0.01, fused=True)])
def test_who_leaves_zeros_alone_is_looked_at_now_and_then_and_nothing_is_written(make: Any, done: list[str]) -> None:
    loop, written = Loop(make), list[int]()
    dense = nn.Linear(12, 16)
    plain = make(dense.parameters())
    for number in range(1, 200):
        before, said = loop.net.get_parameter("0.weight")._version, len(done)
        loop.step()
        written.append(loop.net.get_parameter("0.weight")._version - before)
        assert (len(done) > said) == (number in (1, 4, 16, 64, 128, 192))
        assert loop.alive == 0
    assert set(done) == {"look 2"}
    dense(torch.ones(2, 12)).sum().backward()
    before = dense.weight._version
    plain.step()
    assert set(written) == {dense.weight._version - before}


def test_an_update_is_followed_by_a_look(done: list[str]) -> None:
    loop = Loop(lambda p: SGD(p, 0.1, momentum=0.9), Polynomial(0.8, 2, 12, 5, initial_sparsity=0.1))
    looked = []
    for _ in range(20):
        said = len(done)
        loop.step()
        looked.append(len(done) > said)
        assert loop.alive == 0
    # updates behind steps 2, 7 and 12; nothing is pruned, so nothing is looked at, before the first
    assert [number + 1 for number, look in enumerate(looked) if look and number >= 2] == [3, 6, 8, 11, 13, 16]


@pytest.mark.parametrize("make", [lambda p: Noisy(p, 0.01), lambda p: torch.optim.LBFGS(p)])
def test_others_are_masked_behind_every_step(make: Any, done: list[str]) -> None:
    optimizer = make([nn.Parameter(torch.ones(2))])
    assert not leaves_zeros(optimizer)
    if isinstance(optimizer, Noisy):
        loop = Loop(make)
        for _ in range(20):
            loop.step()
            assert loop.alive == 0
        assert done == ["mask 2"] * 20


def test_an_optimizer_that_divides_by_nothing_is_not_trusted() -> None:
    weights = [nn.Parameter(torch.ones(2))]
    assert leaves_zeros(AdamW(weights))
    assert not leaves_zeros(AdamW(weights, eps=0.0))
    assert not leaves_zeros(AdamW([{"params": weights}, {"params": [nn.Parameter(torch.ones(1))], "eps": 0.0}]))


def test_an_epsilon_that_half_precision_does_not_have_is_found_out(done: list[str]) -> None:
    weight = nn.Linear(4, 4, bias=False).half()
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(weight)
    pruner.update(0)
    optimizer = torch.optim.RMSprop(weight.parameters(), 0.01, eps=1e-12, foreach=False)
    for _ in range(3):
        weight.weight.grad = torch.ones_like(weight.weight)
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.stepped(optimizer)
        assert int((weight.weight == 0).sum()) == 8
    assert done == ["look 1", "mask 1", "mask 1", "mask 1"]


def test_who_writes_to_gradients_behind_the_pruner_is_found_out(done: list[str]) -> None:
    loop = Loop(lambda p: SGD(p, 0.1))

    def noise() -> None:
        for parameter in loop.net.parameters():
            assert parameter.grad is not None
            parameter.grad.add_(0.01)

    for _ in range(6):
        loop.step(noise)
        assert loop.alive == 0
    assert done == ["look 2", *["mask 2"] * 6]


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_write_between_the_two_is_set_to_zero(name: str, done: list[str]) -> None:
    loop = Loop(lambda p: AdamW(p, 0.01))
    weight = loop.net.get_parameter(name)

    def write() -> None:
        with torch.no_grad():
            weight.add_(0.1)

    for between in (lambda: None, lambda: None, write, lambda: None, write, write):
        loop.step(between)
        assert loop.alive == 0, done


def test_a_write_before_the_step_is_set_to_zero_behind_it(done: list[str]) -> None:
    loop = Loop(lambda p: AdamW(p, 0.01))
    for number in range(8):
        if number in (3, 6):
            with torch.no_grad():
                loop.net.get_parameter("2.weight").add_(0.1)
        loop.step()
        assert loop.alive == 0
    assert done == ["look 2", "mask 2", "look 2", "mask 2", "look 2"]  # steps 1; 4, 5; 7, 8


def test_moments_that_a_file_brings_back_are_found_out(done: list[str]) -> None:
    loop = Loop(lambda p: AdamW(p, 0.01))
    for _ in range(5):
        loop.step()
    state = loop.optimizer.state_dict()
    for moments in state["state"].values():
        moments["exp_avg"] = torch.ones_like(moments["exp_avg"])
    loop.optimizer.load_state_dict(state)
    for _ in range(5):
        loop.step()
        assert loop.alive == 0
    assert done == ["look 2", "look 2", "look 2", *["mask 2"] * 5]  # steps 1, 4; 6


def test_moments_that_somebody_writes_are_found_out_by_the_next_look() -> None:
    loop = Loop(lambda p: AdamW(p, 0.01))
    for _ in range(5):
        loop.step()
    loop.optimizer.state[loop.net.get_parameter("0.weight")]["exp_avg"].fill_(1.0)
    found: list[int] = []
    for _ in range(30):
        loop.step()
        found.append(loop.alive)
    assert found[0] > 0, "nothing says so"
    assert set(found[10:]) == {0}, "the 16th step is looked at"


def test_without_the_first_half_weights_are_masked(done: list[str]) -> None:
    loop = Loop(lambda p: SGD(p, 0.1))
    for _ in range(3):
        loop.net(torch.randn(8, 12)).square().mean().backward()
        loop.optimizer.step()
        loop.pruner.stepped(loop.optimizer)
        assert loop.alive == 0
    assert done == ["mask 2"] * 3


def test_a_weight_that_the_optimizer_gets_later_is_among_them() -> None:
    loop = Loop(lambda p: SGD(list(p)[:2], 0.1))
    assert len(loop.pruner.masks.steps(loop.optimizer).weights) == 1
    loop.step()
    loop.optimizer.add_param_group({"params": list(loop.net.parameters())[2:]})
    assert len(loop.pruner.masks.steps(loop.optimizer).weights) == 2
    loop.step()
    assert loop.alive == 0


def test_a_weight_that_is_replaced_is_among_them(done: list[str]) -> None:
    loop = Loop(lambda p: SGD(p, 0.1))
    loop.step()
    loop.net[0].weight = nn.Parameter(torch.ones(16, 12))
    loop.optimizer.param_groups[0]["params"][0] = loop.net[0].weight
    for _ in range(3):
        loop.step()
        assert loop.alive == 0
    assert done == ["look 2", "look 2"]  # the new one is masked where it is found


def test_after_step_masks_all_unless_its_optimizers_step_all(done: list[str]) -> None:
    loop = Loop(lambda p: SGD(list(p)[:2], 0.1))
    with torch.no_grad():
        loop.net.get_parameter("2.weight").add_(1.0)
    loop.pruner.after_step(1, [loop.optimizer])
    assert loop.alive == 0
    both = SGD(loop.net.parameters(), 0.1)
    for number in range(2, 6):
        loop.net(torch.randn(8, 12)).square().mean().backward()
        loop.pruner.before_step(both)
        both.step()
        loop.pruner.after_step(number, [both])
        assert loop.alive == 0
    assert done == ["look 2", "look 2"]


def test_after_step_masks_what_follows_as_well() -> None:
    net = nn.ModuleDict({"student": nn.Linear(6, 5), "teacher": nn.Linear(6, 5)})
    net["teacher"].requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 0), targets=Targets(follow={"teacher": "student"}))
    pruner.attach(net)
    optimizer = SGD(net["student"].parameters(), 0.1)
    pruner.after_step(0, [optimizer])
    for number in range(1, 4):
        net["student"](torch.ones(2, 6)).sum().backward()
        pruner.before_step(optimizer)
        optimizer.step()
        with torch.no_grad():
            net.get_parameter("teacher.weight").add_(1.0)
        pruner.after_step(number, [optimizer])
        assert int((net.get_parameter("teacher.weight") == 0).sum()) == 15
