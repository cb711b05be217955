"""What units are worth: what a criterion is asked for each weight, and how scores of groups are put side by side."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.criterion import FirstOrderDelta, KMeans, NormScale, Site
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import Uniform
from tests.helpers import masks_of, pruned_once, same
from tests.laws.coupled.nets import EXAMPLE, NAMES, Traced, coupling, net
from tests.laws.coupled.units import alive_units, assert_whole_units, worth


@NAMES
def test_the_best_unit_of_a_group_is_what_stays(name: str) -> None:
    model = net(name)
    best = [int(worth(group, model).argmax()) for group in coupling(name).groups]
    pruner = pruned_once(model, 1.0, pattern=Traced(name))
    units = assert_whole_units(coupling(name).groups, masks_of(pruner))
    assert [alive.nonzero().flatten().tolist() for alive in units] == [[i] for i in best]


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

    pruned_once(net("halves"), 0.5, criterion=Spy(), pattern=Traced("halves"))
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
    pattern = Channel(example_inputs=torch.zeros(1, 2))
    groups = pattern.couple(model).groups
    pruner = pruned_once(model, 0.75, criterion=Spy(), pattern=pattern, scope=Uniform())
    assert told == pytest.approx([0.5, 0.5], abs=0.01)
    kept = assert_whole_units(groups, masks_of(pruner))
    assert [int(alive.sum()) for alive in kept] == pytest.approx([200, 200], abs=2)


@pytest.mark.parametrize("normalize", [True, False])
def test_normalized_scores_do_not_see_a_layers_scale(normalize: bool) -> None:
    def kept(scale: float) -> list[Tensor]:
        model = net("perceptron")
        with torch.no_grad():
            model[3].weight.mul_(scale)
        pruner = pruned_once(model, 0.5, pattern=Traced("perceptron", normalize=normalize))
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
    pruner = pruned_once(model, 0.5, criterion=NormScale(), pattern=Traced("convolutions"), scope=Uniform())
    stream = next(g for g in coupling("convolutions").groups if g.name == "stem.0.weight")
    alive = alive_units(stream, masks_of(pruner)).nonzero().flatten().tolist()
    total = [1 + 8, 2 + 1, 3 + 1, 4 + 1, 5 + 1, 6 + 1, 7 + 1, 8 + 1]
    gone = sorted(range(8), key=lambda i: (total[i], -i))[: 8 - len(alive)]
    assert 1 < len(alive) < 8
    assert set(alive) == set(range(8)) - set(gone)
