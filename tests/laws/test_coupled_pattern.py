"""Laws of coupled patterns (`Channel`): units that are slices of many weights, with every idea of every other noun."""

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune.coupling.units import Coupling, Group, alive_along
from lightning_prune.criterion import FilterNorm, FirstOrderDelta, GeometricMedian, KMeans, NormScale, Site
from lightning_prune.learned import LearnedMasks
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.regularizer import L1
from lightning_prune.rounds import PruningRounds
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.selection import Sort
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets
from tests.helpers import criteria_without_norm, grad_of, ideas, masks_of, mlp, same, sgd, train, vary

pytest.importorskip("torch_pruning")


class Convolutions(nn.Module):
    """A residual stream, a depthwise convolution, norms, and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 10, 1, bias=False),
            nn.BatchNorm2d(10),
            nn.ReLU(),
            nn.Conv2d(10, 10, 3, padding=1, groups=10, bias=False),
            nn.BatchNorm2d(10),
            nn.Conv2d(10, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.last = nn.Sequential(nn.ConvTranspose2d(8, 6, 2), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.last(x + self.body(x)).mean((2, 3)))


class Halves(nn.Module):
    """One layer computes two groups of units: each half of its outputs has readers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(6, 16)
        self.one, self.other = nn.Linear(8, 5), nn.Linear(8, 7)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.both(x).relu().chunk(2, 1)
        return self.head(torch.cat([self.one(one).relu(), self.other(other).relu()], 1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4))


NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolutions": (Convolutions, (2, 3, 6, 6)),
    "halves": (Halves, (3, 6)),
    "perceptron": (perceptron, (3, 7)),
    "recurrent": (Recurrent, (2, 4, 5)),
}
HEADS = {"convolutions": "head.weight", "halves": "head.weight", "perceptron": "5.weight", "recurrent": "head.weight"}
NAMES = pytest.mark.parametrize("name", NETS)


def net(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    made: nn.Module = NETS[name][0]()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@cache
def coupling(name: str) -> Coupling:
    """What `Channel` finds in a net; it does not depend on the weights, so that one trace serves all tests."""
    return Channel(example_inputs=torch.zeros(NETS[name][1])).couple(net(name))


@dataclass(frozen=True)
class Traced:
    """`Channel` for one of the nets, without tracing it again."""

    name: str
    multiple: int = 1
    normalize: bool = True
    readers: bool = False
    example_inputs: Any = field(default=None, repr=False)

    def couple(self, model: nn.Module) -> Coupling:
        return coupling(self.name)


def move(model: nn.Module, seed: int) -> None:
    """Move weights that are not zero, and put gradients on."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator) * (parameter != 0))
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def alive_units(group: Group, masks: Mapping[str, Tensor]) -> Tensor:
    """Return which units are alive; all of a unit's slices must say the same."""
    said: list[Tensor] = []
    for part in group.parts:
        if part.name in masks:
            mask = masks[part.name].movedim(part.dim, 0)
            entries = mask.reshape(len(mask), -1).any(1)[part.index]
            assert torch.equal(entries.any(1), entries.all(1)), part.name
            said.append(entries.any(1))
    assert all(torch.equal(said[0], other) for other in said)
    return said[0]


def assert_whole_units(groups: Sequence[Group], masks: Mapping[str, Tensor]) -> list[Tensor]:
    """Assert that the masks are those of whole units, and return which are alive."""
    units = [alive_units(group, masks) for group in groups]
    along = alive_along(groups, units, {name: mask.shape for name, mask in masks.items()})
    for name, mask in masks.items():
        expected = torch.ones_like(mask)
        for dim, alive in along[name].items():
            expected &= alive.view([-1 if d == dim else 1 for d in range(mask.dim())])
        assert torch.equal(mask, expected), name
    return units


def counted(pruner: Pruner) -> tuple[int, int]:
    """Return how many weights are zero by the masks, and how many there are."""
    names = [weight.name for weight in pruner.report().weights]
    return sum(int((~pruner.masks[n].mask).sum()) for n in names), sum(pruner.masks[n].mask.numel() for n in names)


def most(groups: Sequence[Group], pruner: Pruner) -> int:
    """Return how many weights are zero where each group has one unit left."""
    names = [weight.name for weight in pruner.report().weights]
    keeps = [torch.arange(group.units) == 0 for group in groups]
    along = alive_along(groups, keeps, {name: pruner.masks[name].mask.shape for name in names})
    sizes = {name: pruner.masks[name].mask.shape for name in names}
    alive = [
        int(np.prod([int(along[n][d].sum()) if d in along[n] else size for d, size in enumerate(shape)]))
        for n, shape in sizes.items()
    ]
    return sum(shape.numel() for shape in sizes.values()) - sum(alive)


@NAMES
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("criterion", ideas("criterion"))
def test_G3_G5_every_idea_prunes_whole_units_to_the_budget(name: str, scope: Any, criterion: Any) -> None:
    groups = coupling(name).groups
    if "norm" in vars(criterion) and not all(any(group.of("norm")) for group in groups):
        pytest.skip("no norms behind some units")
    for case in ideas("selection"):
        for schedule in ideas("schedule"):
            (selection,), (timing,) = case.values, schedule.values
            model = net(name)
            pruner = Pruner(
                vary(timing, final_sparsity=0.7, pruning_frequency=0.2, rounds=3),
                criterion,
                Traced(name),
                scope,
                selection,
            )
            pruner.attach(model, 40)
            before = masks_of(pruner)
            updates = 0
            for step in range(41):
                if not pruner.after_step(step):
                    continue
                updates += 1
                now = masks_of(pruner)
                units = assert_whole_units(groups, now)
                assert all(bool(alive.any()) for alive in units)
                assert now[HEADS[name]].any(1).all(), "the output layer keeps its rows"
                assert not any(bool((now[n] & ~before[n]).any()) for n in now)
                assert all(torch.equal(w.mask, w.parameter != 0) for w in pruner.masks.values())
                zeros, size = counted(pruner)
                goal = min(pruner.resolved_schedule.sparsity(step) * size, most(groups, pruner))
                if selection.exact:
                    grain = pruner.report().grain
                    steps = 0.5 if len(scope([], 0.5) or [0]) == 1 and type(scope).__name__ == "GlobalRanking" else 1.0
                    assert abs(zeros - goal) <= grain * (1 if steps == 0.5 else len(groups))
                before = now
                move(model, step)
            assert updates
            report = pruner.strip()
            assert report.zeros == counted_zeros(model, report)
            assert all("mask" not in key for module in model.modules() for key in vars(module))


def counted_zeros(model: nn.Module, report: Any) -> int:
    named = dict(model.named_parameters())
    return sum(int((named[weight.name] == 0).sum()) for weight in report.weights)


# As near as whole units allow


def worth(group: Group, model: nn.Module, readers: bool = False) -> Tensor:
    """Return by hand what units are worth under `Magnitude`: the sum of the mean |w| of the weights that compute it.

    With `readers` of those that read it as well.
    """
    named = dict(model.named_parameters())
    scores = torch.zeros(group.units, dtype=torch.float64)
    for part in group.of("out", "in") if readers else group.of("out"):
        rows = named[part.name].detach().double().abs().movedim(part.dim, 0)
        scores += torch.stack([rows[index].mean() for index in part.index])
    return scores


def zeros_of(groups: Sequence[Group], keeps: Sequence[Tensor], shapes: Mapping[str, torch.Size]) -> int:
    along = alive_along(groups, keeps, shapes)
    zeros = 0
    for name, shape in shapes.items():
        mask = torch.ones(shape, dtype=torch.bool)
        for dim, alive in along[name].items():
            mask &= alive.view([-1 if d == dim else 1 for d in range(len(shape))])
        zeros += int((~mask).sum())
    return zeros


def rounded(keep: Tensor, scores: Tensor, able: Tensor, multiple: int) -> Tensor:
    """Return the keep with the best of those that can come back, until there is a multiple of at least one."""
    want = max(multiple, -(-int(keep.sum()) // multiple) * multiple)
    order = [i for i in scores.argsort(descending=True).tolist() if able[i]]
    chosen = torch.zeros_like(keep)
    chosen[order[: min(want, len(order))]] = True
    return chosen


@settings(max_examples=25)
@given(
    name=st.sampled_from(list(NETS)),
    seed=st.integers(0, 99),
    first=st.floats(0, 1),
    more=st.floats(0, 1),
    multiple=st.sampled_from([1, 1, 2, 4]),
    normalize=st.booleans(),
    readers=st.booleans(),
)
def test_G3_no_other_cut_of_the_ranking_is_nearer(
    name: str, seed: int, first: float, more: float, multiple: int, normalize: bool, readers: bool
) -> None:
    groups = coupling(name).groups
    model = net(name, seed)
    final = first + more * (1 - first)
    schedule = Polynomial(final, 0, 2, 2, initial_sparsity=first)
    pruner = Pruner(schedule, pattern=Traced(name, multiple, normalize, readers))
    pruner.attach(model)
    able = [torch.ones(group.units, dtype=torch.bool) for group in groups]
    shapes = {weight.name: torch.Size(weight.shape) for weight in pruner.report().weights}
    size = sum(shape.numel() for shape in shapes.values())
    for step in (0, 2):
        raw = [worth(group, model, readers) for group in groups]
        means = [float((r * a).mean()) if normalize else 1.0 for r, a in zip(raw, able, strict=True)]
        scores = [r / m if m else r for r, m in zip(raw, means, strict=True)]
        contenders = sorted(
            (float(s[i]), g, i) for g, s in enumerate(scores) for i in range(len(s)) if bool(able[g][i])
        )
        keeps = [a.clone() for a in able]
        cuts: list[int] = []
        for cut in range(len(contenders) + 1):
            if cut:
                _, g, i = contenders[cut - 1]
                keeps[g][i] = False
            whole = [rounded(k, s, a, multiple) for k, s, a in zip(keeps, scores, able, strict=True)]
            cuts.append(zeros_of(groups, whole, shapes))
        pruner.after_step(step)
        zeros, _ = counted(pruner)
        goal = schedule.sparsity(step) * size
        nearest = min(abs(cut - goal) for cut in cuts)
        assert abs(zeros - goal) == pytest.approx(nearest, abs=1e-6)
        able = assert_whole_units(groups, masks_of(pruner))
        for alive in able:
            assert int(alive.sum()) % multiple == 0 or bool(alive.all())
        move(model, seed)


@NAMES
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("multiple", [1, 4])
def test_everything_asked_for_leaves_one_step_a_group(name: str, scope: Any, multiple: int) -> None:
    pruner = Pruner(OneShot(1.0, 0), pattern=Traced(name, multiple), scope=scope)
    pruner.attach(net(name))
    pruner.after_step(0)
    units = assert_whole_units(coupling(name).groups, masks_of(pruner))
    assert [int(alive.sum()) for alive in units] == [multiple] * len(units)
    assert pruner.report().sparsity < 1.0


@NAMES
def test_the_best_unit_of_a_group_is_what_stays(name: str) -> None:
    model = net(name)
    best = [int(worth(group, model).argmax()) for group in coupling(name).groups]
    pruner = Pruner(OneShot(1.0, 0), pattern=Traced(name))
    pruner.attach(model)
    pruner.after_step(0)
    units = assert_whole_units(coupling(name).groups, masks_of(pruner))
    assert [alive.nonzero().flatten().tolist() for alive in units] == [[i] for i in best]


@NAMES
def test_G5_reversible_units_come_back_whole(name: str) -> None:
    model = net(name)
    pruner = Pruner(Polynomial(0.5, 0, 4, 2, initial_sparsity=0.5), pattern=Traced(name), reversible=True)
    pruner.attach(model)
    pruner.after_step(0)
    before = masks_of(pruner)
    values = {n: w.ranked().clone() for n, w in pruner.masks.items()}
    group = coupling(name).groups[0]
    dead = alive_units(group, before).logical_not()
    kept = {p.name: p for p in group.of("out")}
    with torch.no_grad():
        for part in kept.values():
            weight = pruner.masks[part.name]
            weight.parameter.mul_(1e-3)
            assert weight.dense is not None
            weight.dense.mul_(1.0)
    pruner.after_step(2)
    now = masks_of(pruner)
    units = assert_whole_units(coupling(name).groups, now)
    assert bool((units[0] & dead).any())
    for n, weight in pruner.masks.items():
        back = now[n] & ~before[n]
        assert torch.equal(weight.parameter.detach()[back], values[n][back])


def test_thresholds_are_those_of_the_units_that_a_weight_computes() -> None:
    """A layer reads one group and computes another; where each has a threshold of its own, it shows the latter's."""
    model = net("perceptron")
    with torch.no_grad():
        model[3].weight.mul_(100.0)
    pruner = Pruner(OneShot(0.5, 0), pattern=Traced("perceptron", normalize=False), scope=Uniform())
    pruner.attach(model)
    groups = coupling("perceptron").groups
    scores = {group.name: worth(group, model) for group in groups}
    pruner.after_step(0)
    for group in groups:
        alive = alive_units(group, masks_of(pruner))
        threshold = float(pruner.masks[group.name].threshold)
        assert threshold == pytest.approx(float(scores[group.name][~alive].max()), rel=1e-6)
    assert float(pruner.masks["3.weight"].threshold) > 10 * float(pruner.masks["0.weight"].threshold)


def test_a_criterion_is_asked_once_a_weight_however_many_groups_it_computes() -> None:
    asked: list[str] = []

    class Spy:
        def at(self, site: Site) -> Any:
            asked.append(site.name)
            return FirstOrderDelta(0.5).at(site)

    pruner = Pruner(OneShot(0.5, 0), Spy(), Traced("halves"))
    pruner.attach(net("halves"))
    pruner.after_step(0)
    assert sorted(asked) == ["both.weight", "one.weight", "other.weight"]


def test_k_means_is_told_the_share_of_units_that_goes() -> None:
    """Three quarters of the weights of a square layer between two others are half of its units."""
    told: list[float] = []

    class Spy:
        def at(self, site: Site) -> Any:
            told.append(site.sparsity)
            return KMeans().at(site)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 2))
    pruner = Pruner(OneShot(0.75, 0), Spy(), Channel(example_inputs=torch.zeros(1, 2)), Uniform())
    pruner.attach(model)
    pruner.after_step(0)
    assert told == pytest.approx([0.5, 0.5], abs=0.01)
    kept = assert_whole_units(pruner_groups(pruner), masks_of(pruner))
    assert [int(alive.sum()) for alive in kept] == pytest.approx([200, 200], abs=2)


def pruner_groups(pruner: Pruner) -> Sequence[Group]:
    here: Any = pruner._model
    return here._claim.groups


@pytest.mark.parametrize("normalize", [True, False])
def test_normalized_scores_do_not_see_a_layers_scale(normalize: bool) -> None:
    def kept(scale: float) -> list[Tensor]:
        model = net("perceptron")
        with torch.no_grad():
            model[3].weight.mul_(scale)
        pruner = Pruner(OneShot(0.5, 0), pattern=Traced("perceptron", normalize=normalize))
        pruner.attach(model)
        pruner.after_step(0)
        return assert_whole_units(coupling("perceptron").groups, masks_of(pruner))

    assert same(kept(1.0), kept(64.0)) is normalize


def test_a_group_of_unequal_units_does_not_wear_away_over_many_updates() -> None:
    spreads = [(0.2, 1.8), (0.95, 1.05), (0.97, 1.03)]
    layers = [nn.Linear(7 if i == 0 else 32, 32) for i in range(3)]
    with torch.no_grad():
        for layer, (low, high) in zip(layers, spreads, strict=True):
            layer.weight.copy_(torch.linspace(low, high, 32)[:, None].expand_as(layer.weight))
    pruner = Pruner(Polynomial(0.5, 0, 100, 1), pattern=EXAMPLE)
    pruner.attach(nn.Sequential(*layers, nn.Linear(32, 4)))
    for step in range(101):
        pruner.after_step(step)
    left = [int((layer.weight != 0).any(1).sum()) for layer in layers]
    assert left[0] >= 12, left  # 4 if those left set the scale at each update


def test_norm_scale_ranks_by_the_norms_of_all_layers_that_share_a_channel() -> None:
    model = net("convolutions")
    with torch.no_grad():
        model.stem[1].weight.copy_(torch.arange(1.0, 9.0))
        model.body[6].weight.copy_(torch.tensor([8.0, 1, 1, 1, 1, 1, 1, 1]))
    pruner = Pruner(OneShot(0.5, 0), NormScale(), Traced("convolutions"), Uniform())
    pruner.attach(model)
    pruner.after_step(0)
    stream = next(g for g in coupling("convolutions").groups if g.name == "stem.0.weight")
    alive = alive_units(stream, masks_of(pruner)).nonzero().flatten().tolist()
    total = [1 + 8, 2 + 1, 3 + 1, 4 + 1, 5 + 1, 6 + 1, 7 + 1, 8 + 1]
    gone = sorted(range(8), key=lambda i: (total[i], -i))[: 8 - len(alive)]
    assert 1 < len(alive) < 8
    assert set(alive) == set(range(8)) - set(gone)


# State

STATES: dict[str, dict[str, Any]] = {
    "plain": {},
    "uniform": {"scope": Uniform()},
    "multiple": {"pattern": Channel(multiple=4, example_inputs=torch.zeros(3, 7))},
    "sort": {"selection": Sort(threshold_decay=0.5)},
    "reversible": {"reversible": True},
} | {case.id: {"criterion": case.values[0]} for case in criteria_without_norm()}


def start(options: dict[str, Any]) -> tuple[nn.Module, Any, Pruner]:
    model = mlp()
    arguments: dict[str, Any] = {"pattern": Channel(example_inputs=torch.zeros(3, 7))} | options
    pruner = Pruner(Polynomial(0.7, 2, 12, 3, initial_sparsity=0.1), **arguments)
    pruner.attach(model)
    return model, sgd(model), pruner


@pytest.mark.parametrize("cut", [1, 5, 8, 14])
@pytest.mark.parametrize("variant", STATES)
def test_G2_resumed_is_uninterrupted(variant: str, cut: int) -> None:
    model, optimizer, pruner = start(STATES[variant])
    train(model, pruner, optimizer, range(cut))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), pruner.state_dict()))
    train(model, pruner, optimizer, range(cut, 16))
    again, its_optimizer, its_pruner = start(STATES[variant])
    again.load_state_dict(saved[0])
    its_optimizer.load_state_dict(saved[1])
    its_pruner.load_state_dict(saved[2])
    train(again, its_pruner, its_optimizer, range(cut, 16))
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    assert same(pruner.state_dict(), its_pruner.state_dict())
    assert same(optimizer.state_dict()["state"], its_optimizer.state_dict()["state"])
    assert its_pruner.strip() == pruner.strip()


@NAMES
def test_G2_a_stripped_state_finds_its_masks_in_the_zeros(name: str) -> None:
    """Zeros that were not pruned, a bias, a whole norm or a column that reads a kept unit, do not make a unit dead."""
    model = net(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter[::2] = 0.0
        model.get_parameter(HEADS[name]).zero_()
    pruner = Pruner(OneShot(0.5, 3), pattern=Traced(name))
    pruner.attach(model)
    pruner.after_step(3)
    masks, thresholds = masks_of(pruner), {n: float(w.threshold) for n, w in pruner.masks.items()}
    pruner.strip()
    state = pruner.state_dict()
    assert state["stripped"]
    assert not any(isinstance(value, Tensor) for value in state.values())
    again = Pruner(OneShot(0.5, 3), pattern=Traced(name))
    again.load_state_dict(state)
    again.attach(model)
    assert same(masks_of(again), masks)
    assert {n: float(w.threshold) for n, w in again.masks.items()} == thresholds
    assert not again.after_step(9)


def test_G28_a_state_of_other_units_is_refused() -> None:
    _, _, pruner = start({})
    pruner.after_step(2)
    state = pruner.state_dict()
    other = Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=torch.zeros(3, 7)))
    other.load_state_dict(state)
    wider = perceptron()
    with pytest.raises(ValueError, match="other weights"):
        other.attach(wider)
    assert all("mask" not in key for module in wider.modules() for key in vars(module))
    assert not other.attached


# What attaching leaves alone


class Noisy(nn.Module):
    """Draws from every generator in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.net = nn.Sequential(nn.Linear(7, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.ReLU(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x) + 0.0 * (torch.rand(()) + np.random.rand() + random.random())


def snapshot(model: nn.Module) -> Any:
    numbers: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "numpy": (numbers["state"]["key"].tolist(), numbers["state"]["pos"]),
        "python": random.getstate(),
        "state": copy.deepcopy(dict(model.state_dict())),
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "ids": [id(p) for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(k for k in vars(m) if not k.endswith(("_mask", "_threshold"))) for m in model.modules()],
        "calls": model.calls,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("training", [True, False])
def test_G12_attaching_leaves_model_and_generators_as_they_were(training: bool) -> None:
    torch.manual_seed(3)
    model = Noisy().train(training)
    model.net[1].eval()
    model(torch.randn(4, 7)).sum().backward()
    for parameter in model.net[4].parameters():
        parameter.requires_grad_(False)
    model.net[4].weight.requires_grad_(True)
    before = snapshot(model)
    pruner = Pruner(OneShot(0.5, 5), pattern=Channel(example_inputs=torch.zeros(3, 7)))
    pruner.attach(model)
    after = snapshot(model)
    others = {"numpy", "python"}  # see below
    assert [key for key in before if not same(before[key], after[key]) and key not in others] == []
    pruner.strip()
    assert same(dict(model.state_dict()), before["state"])


def test_G12_attaching_leaves_the_generators_of_numpy_and_python_as_they_were() -> None:
    model = Noisy()
    before = snapshot(model)
    Pruner(OneShot(0.5, 5), pattern=Channel(example_inputs=torch.zeros(3, 7))).attach(model)
    after = snapshot(model)
    assert all(same(before[key], after[key]) for key in ("numpy", "python"))


@NAMES
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("multiple", [1, 4])
def test_G12_a_final_sparsity_of_0_keeps_all(name: str, scope: Any, multiple: int) -> None:
    model = net(name)
    before = copy.deepcopy(dict(model.state_dict()))
    pruner = Pruner(Polynomial(0.0, 0, 4, 1), pattern=Traced(name, multiple), scope=scope)
    pruner.attach(model)
    for step in range(5):
        pruner.after_step(step)
    assert all(bool(weight.mask.all()) for weight in pruner.masks.values())
    assert same(dict(model.state_dict()), before)


# What goes along, and what is counted


def test_biases_and_norms_go_along_but_are_neither_counted_nor_regularized() -> None:
    model = net("convolutions")
    pruner = Pruner(OneShot(0.5, 0), pattern=Traced("convolutions"), regularizer=L1(0.1))
    pruner.attach(model)
    counted_names = {weight.name for weight in pruner.report().weights}
    assert counted_names == {n for n, p in model.named_parameters() if p.dim() > 1}
    assert set(pruner.masks) - counted_names
    pruner.after_step(0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pruner.before_step()
    for name, parameter in model.named_parameters():
        assert torch.equal(grad_of(model, name) != 0, (parameter != 0) & torch.tensor(name in counted_names)), name
    weights = [model.get_parameter(name).detach() for name in counted_names]
    assert pruner.penalty == pytest.approx(0.1 * float(torch.stack([w.abs().sum() for w in weights]).sum()))


@NAMES
def test_changed_is_the_share_of_all_mask_entries(name: str) -> None:
    pruner = Pruner(OneShot(0.5, 0), pattern=Traced(name))
    pruner.attach(net(name))
    pruner.after_step(0)
    masks = list(masks_of(pruner).values())
    assert pruner.changed == sum(int((~m).sum()) for m in masks) / sum(m.numel() for m in masks)


def test_G14_what_is_left_whole_is_reported_with_its_reason() -> None:
    model = net("perceptron")
    pruner = Pruner(OneShot(0.5, 0), pattern=Traced("perceptron"), targets=Targets(exclude=("^3",)))
    pruner.attach(model)
    pruner.after_step(0)
    report = pruner.report()
    assert {weight.name for weight in report.weights} == {"0.weight"}
    assert report.skipped["3.weight"] == "excluded by '^3'; but columns that read removed units go"
    assert "5.weight" in report.skipped
    assert (model[3].weight == 0).any(0).sum() > 0
    assert not (model[3].weight == 0).all(1).any()
    assert report.skipped["5.bias"] == "bias"
    assert "0.bias" not in report.skipped


def test_G14_a_weight_whose_outputs_a_frozen_layer_reads_is_named() -> None:
    model = nn.Sequential(nn.Linear(7, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 4))
    model[4].weight.requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 0), pattern=EXAMPLE)
    pruner.attach(model)
    reason = pruner.report().skipped["2.weight"]
    assert reason == "tied to 4.weight, which is frozen; but columns that read removed units go"


# G13, G24: errors before anything is changed


class Whole(nn.Module):
    """All of its channels are its output."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


def frozen() -> nn.Module:
    model = perceptron()
    model[0].bias.requires_grad_(False)  # pyright: ignore
    model[3].weight.requires_grad_(False)  # pyright: ignore
    return model


EXAMPLE = Channel(example_inputs=torch.zeros(3, 7))
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no example": (perceptron, {"pattern": Channel()}, "Sequential has no example inputs"),
    "wrong example": (perceptron, {"pattern": Channel(example_inputs=torch.zeros(3, 6))}, "Sequential could not be"),
    "nothing removable": (Whole, {}, r"Whole has no units that can be removed \(only.weight: .*output"),
    "frozen": (frozen, {}, r"no units that can be removed \(.*0.weight: tied to 0.bias, which is frozen"),
    "excluded": (
        perceptron,
        {"targets": Targets(exclude=("^0", "^3"))},
        "0.weight: excluded by '^0'".replace("^", r"\^"),
    ),
    "no norm": (perceptron, {"criterion": NormScale()}, "no norm layer behind '3.weight'"),
    "past the end": (perceptron, {"schedule": OneShot(0.5, 90)}, "at or past the end of the run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_G13_an_error_before_anything_is_changed(case: str) -> None:
    make, options, message = REFUSED[case]
    model = make()
    before = copy.deepcopy(dict(model.state_dict()))
    flags = [(p.requires_grad, id(p)) for p in model.parameters()]
    seen = [dict(vars(module)) for module in model.modules()]
    arguments: dict[str, Any] = {"schedule": OneShot(0.5, 5), "pattern": EXAMPLE} | options
    pruner = Pruner(**arguments)
    with pytest.raises(ValueError, match=message):
        pruner.attach(model, 50)
    assert not pruner.attached
    assert same(dict(model.state_dict()), before)
    assert [(p.requires_grad, id(p)) for p in model.parameters()] == flags
    assert [set(vars(m)) - set(s) for m, s in zip(model.modules(), seen, strict=True)] == [set()] * len(seen)


RULES = {"a": 0.25, "c": 0.75}


class Blocks(nn.Module):
    """Three residual blocks, each with channels of its own, and a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        for name in "abc":
            self.add_module(name, nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in "abc":
            x = x + self.get_submodule(name)(x)
        return self.head(x)


def test_G3_groups_under_sparsity_rules_meet_their_own_budgets() -> None:
    torch.manual_seed(0)
    model = Blocks()
    targets = Targets(include=(r"[abc]\.0\.weight",), sparsity={rf"^{name}": s for name, s in RULES.items()})
    pruner = Pruner(Polynomial(0.5, 0, 4, 2), pattern=Channel(example_inputs=torch.zeros(2, 6)), targets=targets)
    pruner.attach(model, 10)
    for step in (0, 2, 4):
        pruner.update(step)
        for name in "abc":
            part = pruner.resolved_schedule.sparsity(step) / 0.5
            gone = int((model.get_parameter(f"{name}.0.weight") == 0).all(1).sum())
            assert gone == round(part * RULES.get(name, 0.5) * 16)
    state = pruner.state_dict()
    report = pruner.strip()
    assert report.sparsity == report.final_sparsity == 0.5
    again = Pruner(Polynomial(0.5, 0, 4, 2), pattern=Channel(example_inputs=torch.zeros(2, 6)), targets=targets)
    again.load_state_dict(state)
    again.attach(model, 10)
    assert again.strip().zeros == report.zeros
    assert shrink(model, torch.zeros(2, 6)).model.get_parameter("b.0.weight").shape == (8, 8)


@pytest.mark.parametrize("rules", [{"stem": 0.3}, {"a.2": 0.3}, {"^a": 0.3}, {"head": 0.3}])
def test_G13_a_sparsity_that_cannot_hold(rules: dict[str, float]) -> None:
    model = Blocks()
    before = copy.deepcopy(dict(model.state_dict()))
    pattern = Channel(example_inputs=torch.zeros(2, 6))
    pruner = Pruner(OneShot(0.5, 0), pattern=pattern, targets=Targets(sparsity=rules))
    with pytest.raises(
        ValueError, match=r"Targets\(sparsity=\.\.\.\) cannot hold: (units under .* share the|'head' matches no)"
    ):
        pruner.attach(model, 10)
    assert same(dict(model.state_dict()), before)


def test_readers_tell_apart_what_a_norm_has_made_equal() -> None:
    """Behind BatchNorm a filter's size changes nothing; what the next layer makes of its channel does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8, eps=0.0), nn.ReLU(), nn.Linear(8, 2))
    filters, readings = model.get_parameter("0.weight"), model.get_parameter("3.weight")
    with torch.no_grad():
        filters.mul_(torch.logspace(0, 0.01, 8)[:, None] / filters.abs().mean(1, keepdim=True))
        readings.mul_(torch.logspace(0, -3, 8) / readings.abs().mean(0))
    for readers, kept in ((False, [4, 5, 6, 7]), (True, [0, 1, 2, 3])):
        tried = copy.deepcopy(model)
        example = torch.zeros(2, 4)
        pruner = Pruner(OneShot(0.5, 0), pattern=Channel(readers=readers, example_inputs=example))
        pruner.attach(tried)
        pruner.after_step(0)
        assert pruner.masks["0.weight"].mask.any(1).nonzero().flatten().tolist() == kept


def test_readers_that_are_left_whole_score_units_as_well() -> None:
    model = net("perceptron")
    rules = Targets(exclude=(r"^5\.",))
    with torch.no_grad():
        model[5].weight[:, 0] = 100.0
        model[3].weight[0] = 1e-6
    for readers in (False, True):
        tried = copy.deepcopy(model)
        pruner = Pruner(OneShot(0.5, 0), pattern=Traced("perceptron", readers=readers), targets=rules)
        pruner.attach(tried)
        pruner.after_step(0)
        assert bool(pruner.masks["3.weight"].mask[0].any()) is readers


@pytest.mark.parametrize("criterion", [FilterNorm(2), GeometricMedian(), KMeans(), NormScale()], ids=repr)
def test_G13_readers_with_a_criterion_of_whole_outputs(criterion: Any) -> None:
    with pytest.raises(ValueError, match="readers=True has no effect with"):
        Pruner(OneShot(0.5, 0), criterion, Channel(readers=True))
    with pytest.raises(ValueError, match="readers=True has no effect with"):
        PruningRounds(criterion=criterion, pattern=Channel(readers=True))
    with pytest.raises(ValueError, match="learned masks have no scores"):
        LearnedMasks(pattern=Channel(readers=True))


@pytest.mark.parametrize("multiple", [0, -1, 1.5, True])
def test_G13_a_multiple_that_is_none(multiple: Any) -> None:
    with pytest.raises(ValueError, match="multiple="):
        Channel(multiple=multiple)


@pytest.mark.parametrize("kinds", ["head", (), ("heads",), ("channel", "unit")])
def test_G13_kinds_that_are_none(kinds: Any) -> None:
    with pytest.raises(ValueError, match="kinds="):
        Channel(kinds=kinds)


@NAMES
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_G24_a_score_that_is_not_finite_names_the_weight_and_changes_nothing(name: str, value: float) -> None:
    model = net(name)
    pruner = Pruner(OneShot(0.5, 1), FirstOrderDelta(0.5), Traced(name))
    pruner.attach(model)
    weight = coupling(name).groups[-1].name
    with torch.no_grad():
        model.get_parameter(weight).view(-1)[0] = value
    before = copy.deepcopy(dict(model.state_dict()))
    with pytest.raises(ValueError, match=f"score of '{weight}' is not finite"):
        pruner.after_step(1)
    assert same(dict(model.state_dict()), before)
    assert all(bool(w.mask.all()) and not w.memory for w in pruner.masks.values())
    assert pruner.last_update is None


def test_patterns_with_other_examples_are_equal_and_do_not_print_them() -> None:
    assert replace(Channel(), example_inputs=torch.zeros(3, 7)) == Channel()
    assert "tensor" not in repr(EXAMPLE)
