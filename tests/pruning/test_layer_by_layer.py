"""One layer after the other: whose turn it is, what it sees, exact numbers, resumed to the bit, nearer than at once."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_prune import LearnedMasks, PruningCallback
from lightning_prune.budget import MACs
from lightning_prune.criterion import FilterNorm, Inbound, Magnitude, MeanActivation, Snip, Wanda
from lightning_prune.pattern import Channel, Element, Kernel, Row
from lightning_prune.pruning import Pruner
from lightning_prune.reconstruction import Lasso, SparseGPT, UnitReconstruction
from lightning_prune.regrowth import Gradient
from lightning_prune.schedule import LayerByLayer, OneShot
from lightning_prune.scope import ERK, ByLayer, GlobalRanking, Uniform
from lightning_prune.selection import Histogram
from lightning_prune.targets import Targets
from tests.helpers import same

IMAGES = torch.zeros(2, 3, 8, 8)
SCHEDULE = LayerByLayer(0.5, 3, 12)
STEPS = 14


def conv() -> nn.Sequential:
    first, second, third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(10, 6, 3, stride=2)
    relus = nn.ReLU(), nn.ReLU(), nn.ReLU()
    layers = [layer for pair in zip((first, second, third), relus, strict=True) for layer in pair]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 5))


def mlp() -> nn.Sequential:
    sizes = [12, 20, 18, 16, 6]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def net(make: Callable[[], nn.Sequential] = conv) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make()


def batch(model: nn.Sequential, step: int, number: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    if isinstance(model[0], nn.Linear):
        x = torch.randn(number, 12, generator=generator)
        return x + x.roll(1, -1) + x.roll(2, -1)
    x = torch.randn(number, 3, 8, 8, generator=generator)
    return x + x.roll(1, -1) + x.mean(1, keepdim=True)


def one_step(model: nn.Sequential, pruner: Pruner, optimizer: torch.optim.Optimizer, step: int) -> bool:
    optimizer.zero_grad()
    functional.cross_entropy(model(batch(model, step)), torch.arange(16) % 5).backward()
    pruner.before_step(optimizer)
    optimizer.step()
    return pruner.after_step(step, [optimizer])


def run(model: nn.Sequential, pruner: Pruner, lr: float = 0.05, steps: int = STEPS) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9 if lr else 0.0)
    pruner.attach(model, STEPS)
    for step in range(1, steps + 1):
        one_step(model, pruner, optimizer, step)


def named(value: Any) -> str:
    """A case's name, the same in every process."""
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(
    ("make", "scope", "pattern"),
    [
        (conv, Uniform(), Element()),
        (mlp, ERK(), Element()),
        (mlp, ByLayer({"0.weight": 0.3, "4.weight": 0.8}), Element()),
        (mlp, Uniform(), Row()),
    ],
    ids=named,
)
def test_G3_at_its_turn_a_layer_goes_to_its_share_and_no_other_mask_moves(make: Any, scope: Any, pattern: Any) -> None:
    model, pruner = net(make), Pruner(SCHEDULE, scope=scope, pattern=pattern)
    whole = Pruner(OneShot(0.5, 0), scope=scope, pattern=pattern)
    other = net(make)
    whole.attach(other, STEPS)
    whole.after_step(0)
    wanted = {name: weight.pruned for name, weight in whole.masks.items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    pruner.attach(model, STEPS)
    names = list(pruner.masks)
    turns = [3 + n * 9 // (len(names) - 1) for n in range(len(names))]
    for step in range(1, STEPS + 1):
        before = {name: weight.mask for name, weight in pruner.masks.items()}
        updated = one_step(model, pruner, optimizer, step)
        assert updated == (step in turns)
        if not updated:
            continue
        name = names[turns.index(step)]
        moved = [key for key, weight in pruner.masks.items() if not torch.equal(weight.mask, before[key])]
        assert moved == [name]
        weight = pruner.masks[name]
        assert weight.pruned == wanted[name]
        if isinstance(pattern, Element):  # the smallest as they are now
            values = weight.values.detach().abs()
            assert float(values[weight.mask].min()) >= float(weight.threshold)
        report = pruner.report()
        grain = 1e-6 if isinstance(pattern, Element) else sum(0.5 * w[0].numel() for w in model.parameters())
        assert abs(report.target_sparsity * report.size - sum(w.pruned for w in pruner.masks.values())) <= grain
    assert pruner.strip().zeros == sum(wanted.values())


def test_G3_groups_of_units_are_one_layer_each_and_end_as_all_at_once_would() -> None:
    for options in ({}, {"budget": MACs()}, {"criterion": FilterNorm(1), "scope": ByLayer({"0.weight": 0.25})}):
        ideas: dict[str, Any] = {"pattern": Channel(example_inputs=IMAGES), "scope": Uniform()} | options
        model, pruner = net(), Pruner(SCHEDULE, **ideas)
        whole = Pruner(OneShot(0.5, 0), **ideas)
        whole.attach(net(), STEPS)
        whole.after_step(0)
        wanted = {name: weight.pruned for name, weight in whole.masks.items()}
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        pruner.attach(model, STEPS)
        gone: dict[int, list[int]] = {}
        for step in range(1, STEPS + 1):
            if one_step(model, pruner, optimizer, step):
                biases = [pruner.masks[f"{n}.bias"] for n in (0, 2, 4)]
                gone[step] = [bias.pruned for bias in biases]
                report = pruner.report()
                if "budget" not in options:
                    zeros = report.target_sparsity * report.size
                    assert abs(zeros - report.zeros) <= report.grain, "what the schedule says is what is gone"
        last = [whole.masks[f"{n}.bias"].pruned for n in (0, 2, 4)]
        assert min(last) > 0
        assert gone == {3: [last[0], 0, 0], 7: [*last[:2], 0], 12: last}
        assert {name: weight.pruned for name, weight in pruner.masks.items()} == wanted


@pytest.mark.parametrize(
    ("criterion", "pattern"),
    [(Inbound(window=2), Kernel()), (Wanda(window=3), Element()), (Snip(window=1), Element()), (Magnitude(), Row())],
    ids=named,
)
def test_each_is_chosen_with_those_before_it_pruned_as_one_pruner_after_the_other_would(
    criterion: Any, pattern: Any
) -> None:
    """A slow version: a pruner for each layer, on a model that those before have stripped; no step moves weights."""
    model = net()
    run(model, Pruner(SCHEDULE, criterion, pattern, Uniform()), lr=0.0)
    slow = net()
    for name, step in zip(("0", "2", "4", "7"), (3, 6, 9, 12), strict=True):
        alone = Pruner(
            OneShot(0.5, step), criterion, pattern, Uniform(), targets=Targets(include=(rf"^{name}\.weight",))
        )
        run(slow, alone, lr=0.0, steps=step)
        alone.strip()
    assert same(dict(model.state_dict()), dict(slow.state_dict()))
    once = net()
    run(once, Pruner(OneShot(0.5, 12), criterion, pattern, Uniform()), lr=0.0)
    assert same(dict(once.state_dict()), dict(slow.state_dict())) == (criterion == Magnitude())


def output_error(make: Any, seed: int, schedule: Any, reconstruction: Any) -> tuple[float, int]:
    """Return how far the output is from that of the whole net on other inputs; no step moves weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
    whole = copy.deepcopy(model)
    units = isinstance(reconstruction, UnitReconstruction)
    pattern = Channel(example_inputs=batch(model, 0, 2)) if units else Element()
    pruner = Pruner(schedule, pattern=pattern, scope=Uniform(), reconstruction=reconstruction)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner.attach(model, STEPS)
    for step in range(1, 13):
        model(batch(model, 1, 300)).square().mean().backward()
        pruner.before_step(optimizer)
        pruner.after_step(step, [optimizer])
    zeros = pruner.strip().zeros
    with torch.no_grad():
        x = batch(whole, 99, 500)
        return float((model(x) - whole(x)).square().mean()), zeros


def test_linear_nets_rebuilt_layer_by_layer_are_nearer_to_what_they_were_than_at_once() -> None:
    """Of several nets together: a layer keeps what it gives on what it reads by then."""
    after, once = 0.0, 0.0
    for seed in range(3):
        error, zeros = output_error(mlp, seed, LayerByLayer(0.7, 3, 12), Lasso(window=1))
        other, as_many = output_error(mlp, seed, OneShot(0.7, 12), Lasso(window=1))
        assert zeros == as_many
        after, once = after + error, once + other
    assert after < 0.995 * once


@pytest.mark.parametrize(
    "cut", [3, 5, pytest.param(2, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("case", ["weights", "units"])
def test_G2_resumed_between_two_turns_it_ends_in_the_same_bits(case: str, cut: int) -> None:
    def made() -> Pruner:
        if case == "weights":
            return Pruner(SCHEDULE, pattern=Element(), scope=Uniform(), reconstruction=SparseGPT(window=2))
        return Pruner(SCHEDULE, MeanActivation(window=2), Channel(example_inputs=IMAGES), Uniform())

    def end(cut: int | None) -> Any:
        model, pruner = net(), made()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        pruner.attach(model, STEPS)
        for step in range(1, STEPS + 1):
            one_step(model, pruner, optimizer, step)
            if step == cut:
                states = copy.deepcopy((model.state_dict(), optimizer.state_dict(), pruner.state_dict()))
                model, pruner = net(), made()
                optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
                model.load_state_dict(states[0])
                pruner.load_state_dict(states[2])
                pruner.attach(model, STEPS)
                optimizer.load_state_dict(states[1])
        masks = {name: weight.mask.clone() for name, weight in pruner.masks.items()}
        assert pruner.strip().sparsity > 0.4
        return dict(model.state_dict()), masks

    assert same(end(cut), end(None))


def test_rules_keep_their_own_share_and_take_their_turn_in_the_models_order() -> None:
    model, pruner = net(), Pruner(SCHEDULE, scope=Uniform(), targets=Targets(sparsity={"2.weight": 0.25}))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    pruner.attach(model, STEPS)
    order: list[str] = []
    for step in range(1, STEPS + 1):
        one_step(model, pruner, optimizer, step)
        order += [name for name, weight in pruner.masks.items() if weight.pruned and name not in order]
    assert order == ["0.weight", "2.weight", "4.weight", "7.weight"]
    assert pruner.masks["2.weight"].pruned == 180
    assert pruner.masks["4.weight"].pruned == 270


def test_weights_of_a_layer_that_is_pruned_may_return_and_dense_layers_stay_dense() -> None:
    model, pruner = net(), Pruner(SCHEDULE, scope=Uniform(), regrowth=Gradient(0.5, 13))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    pruner.attach(model, STEPS)
    masks: list[Tensor] = []
    for step in range(1, 10):
        one_step(model, pruner, optimizer, step)
        masks.append(pruner.masks["0.weight"].mask)
    assert [pruner.masks[f"{n}.weight"].pruned for n in (0, 2, 4, 7)] == [108, 360, 270, 0]
    assert bool((masks[8] & ~masks[3]).any())


def test_a_step_that_jumps_over_turns_makes_up_for_them() -> None:
    model, pruner = net(), Pruner(SCHEDULE, scope=Uniform())
    pruner.attach(model, STEPS)
    assert not pruner.after_step(2)
    assert pruner.after_step(10)
    assert [weight.pruned for weight in pruner.masks.values()] == [108, 360, 270, 0]
    assert pruner.last_update == 9


def test_the_plan_shows_the_order() -> None:
    pruner = Pruner(SCHEDULE, scope=Uniform())
    pruner.attach(net(), STEPS)
    told = "one layer after the other: 0.weight at step 3, 2.weight at step 6, 4.weight at step 9, 7.weight at step 12"
    assert told in pruner.report().plan()
    many = nn.Sequential(*[nn.Linear(4, 4) for _ in range(30)])
    long = Pruner(LayerByLayer(0.5, 0, 40), scope=Uniform())
    long.attach(many, 50)
    assert "10.weight at step 13, 18 more, 29.weight at step 40" in long.report().plan()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "ranked together": (lambda: Pruner(SCHEDULE).attach(net(), 20), "scope=GlobalRanking(floor=0.001) ranks 0.weight,"),
    "units ranked together": (
        lambda: Pruner(SCHEDULE, pattern=Channel(example_inputs=IMAGES), scope=GlobalRanking()).attach(net(), 20),
        "use scope=Uniform(), ERK() or ByLayer(...)",
    ),
    "more layers than steps": (
        lambda: Pruner(LayerByLayer(0.5, 4, 6), scope=Uniform()).attach(net(), 20),
        "has 3 steps for 4 layers, each of which is to have a step of its own: end_step must be 7 at least",
    ),
    "not exact": (lambda: Pruner(SCHEDULE, scope=Uniform(), selection=Histogram()), "selection=Histogram("),
    "learned": (lambda: LearnedMasks(schedule=SCHEDULE), "learned masks are learned in all layers at once"),
    "a share of weights": (lambda: LayerByLayer(1.2, 0, 10), "final_sparsity=1.2"),
    "a window": (lambda: LayerByLayer(0.5, 9, 3), "end_step=3 must not come before begin_step=9"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_it_is_refused_by_name(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_one_layer_alone_has_its_turn_at_the_beginning() -> None:
    pruner = Pruner(LayerByLayer(0.5, 2, 9), targets=Targets(include=("0.weight",)))
    pruner.attach(net(), STEPS)
    assert [step for step in range(1, 12) if pruner.after_step(step)] == [2, 9]
    assert pruner.masks["0.weight"].pruned == 108


def test_the_callback_takes_it_with_a_scope_that_ranks_layers_apart() -> None:
    assert PruningCallback(Pruner(LayerByLayer(0.5, 0.1, 0.6), scope=Uniform())).pruner.schedule.final_sparsity == 0.5
