"""No layer dies in silence: one weight of each stays at least, and a layer that lost nearly all is named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from pytorch_lightning.demos.transformer import Transformer
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback, Targets
from lightning_prune.pattern import Block, NofM, Row
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK, GlobalRanking, Uniform
from lightning_prune.selection import Histogram, Sort
from tests.guarantees.helpers import Net, fit
from tests.helpers import train


class Mlp(Net):
    """The README's one line on a small net: its output layer has the smaller gradients, and lost everything."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(net=nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 4)))
        with torch.no_grad():
            self.net[2].weight.mul_(0.05)


class Words(Net):
    """Lightning's own transformer, smaller: what xavier has drawn for its attention is less than the rest."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        sizes = {"vocab_size": 60, "ninp": 32, "nhead": 2, "nhid": 32, "nlayers": 1}
        super().__init__(lambda p: torch.optim.SGD(p, lr=0.1), Transformer(**sizes, dropout=0.0))

    def loss(self, seed: int) -> Tensor:
        words = torch.randint(60, (2, 5), generator=torch.Generator().manual_seed(seed))
        return nn.functional.nll_loss(self.net(words, words), words.view(-1))


class Modulated(nn.Module):
    """A layer scaled by one that begins at zero, as adaLN-zero does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.modulation, self.out = nn.Linear(12, 32), nn.Linear(12, 32), nn.Linear(32, 4)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x) * (1 + self.modulation(x)))


def small_steps(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-4)


NETS: dict[str, Any] = {"mlp": Mlp, "transformer": Words, "zero": lambda: Net(small_steps, Modulated())}


def left(callback: PruningCallback) -> dict[str, int]:
    assert callback.report is not None
    return {weight.name: weight.size - weight.zeros for weight in callback.report.weights}


@pytest.mark.parametrize("net", NETS)
def test_G29_every_layer_keeps_a_weight_and_those_that_lost_nearly_all_are_named(net: str) -> None:
    callback = PruningCallback(0.9)
    with pytest.warns(UserWarning, match=r"pruning: nearly nothing is left of .+GlobalRanking\(floor=") as caught:
        fit(NETS[net](), callback, max_steps=20, batches=20)
    said = [str(w.message) for w in caught if "nearly nothing" in str(w.message)]
    assert len(said) == 1
    report = callback.report
    assert report is not None
    assert report.zeros == round(0.9 * report.size)
    assert min(left(callback).values()) >= 1
    starved = [w for w in report.weights if w.sparsity > 0.99]
    assert starved
    assert all(f"{w.name} ({w.size - w.zeros} of {w.size:,})" in said[0] for w in starved)
    assert all(f"{w.name} ({w.size - w.zeros} of {w.size:,})" in report.table() for w in starved)
    assert not any(f"{w.name} (" in said[0] for w in report.weights if w.sparsity < 0.9)


@pytest.mark.parametrize("net", NETS)
def test_G29_without_a_floor_a_layer_dies_and_is_named(net: str) -> None:
    schedule = Polynomial(0.9, begin_step=0.05, end_step=0.4, pruning_frequency=0.004)
    for none in (0, None):
        callback = PruningCallback(Pruner(schedule, scope=GlobalRanking(floor=none)))
        with pytest.warns(UserWarning, match=r"nearly nothing is left of .*\(0 of "):
            fit(NETS[net](), callback, max_steps=20, batches=20)
        assert min(left(callback).values()) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"scope": Uniform()},
        {"scope": ERK()},
        {"scope": GlobalRanking(floor=0.05)},
        {"targets": Targets(sparsity={r"net\.2": 0.995})},
        {"targets": Targets(exclude=(r"net\.2",))},
    ],
    ids=str,
)
def test_G29_with_a_remedy_or_a_rule_that_asks_for_it_nothing_is_said(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*nearly nothing.*")
        fit(Mlp(), PruningCallback(Pruner(Polynomial(0.9, 1, 8, 1), **options)), max_steps=20, batches=20)


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_G29_nothing_and_everything_are_what_they_say(sparsity: float) -> None:
    callback = PruningCallback(Pruner(OneShot(sparsity, 2)))
    fit(Mlp(), callback, max_steps=4, batches=4)
    assert callback.report is not None
    assert callback.report.sparsity == sparsity
    assert not callback.report.starved


def test_G29_fewer_weights_than_layers_are_as_many_as_asked_for_and_the_dead_are_named() -> None:
    callback = PruningCallback(Pruner(OneShot(1 - 1 / 1024, 2)))
    with pytest.warns(UserWarning, match=r"nearly nothing is left of net\.2\.weight \(0 of 256\)"):
        fit(Mlp(), callback, max_steps=4, batches=4)
    assert left(callback) == {"net.0.weight": 1, "net.2.weight": 0}


PATTERNS: list[dict[str, Any]] = [
    {},
    {"reversible": True},
    {"pattern": Row()},
    {"pattern": Block(4, 4)},
    {"pattern": Block(5, 3)},
    {"pattern": NofM(2, 4)},
    {"selection": Histogram()},
    {"selection": Sort()},
    {"selection": Histogram(), "pattern": Block(4, 4), "reversible": True},
]


@pytest.mark.parametrize("options", PATTERNS, ids=str)
@pytest.mark.parametrize("floor", [0.001, 0.05])
def test_G29_holds_at_every_update_for_every_way_to_prune(options: dict[str, Any], floor: float) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(7, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 5))
    with torch.no_grad():
        model[4].weight.mul_(1e-3)
    pruner = Pruner(Polynomial(0.85, 0, 12, 3), scope=GlobalRanking(floor=floor), **options)
    pruner.attach(model)
    exact = set(options) <= {"reversible"} or isinstance(options.get("pattern"), NofM)

    def look(step: int, updated: bool) -> None:
        masks = [weight.mask for weight in pruner.masks.values()]
        assert all(int(mask.sum()) >= max(1, floor * mask.numel()) for mask in masks)
        asked = pruner.resolved_schedule.sparsity(pruner.last_update or 0)
        zeros = sum(int((~mask).sum()) for mask in masks)
        assert not exact or zeros == round(asked * 2080)

    train(model, pruner, torch.optim.SGD(model.parameters(), lr=1e-3), range(13), look)
    assert int(pruner.masks["4.weight"].mask.sum()) < 60, "else the floor had nothing to do"


def test_G29_the_two_weights_of_a_recurrent_layer_have_one_floor() -> None:
    torch.manual_seed(0)
    model: Any = nn.LSTM(6, 8, num_layers=2)
    with torch.no_grad():
        model.weight_hh_l1.mul_(1e-3)
        model.weight_ih_l1.mul_(1e-3)
    pruner = Pruner(OneShot(0.8, 0), scope=GlobalRanking(floor=0.1))
    pruner.attach(model)
    pruner.after_step(0)
    kept = {name: int(weight.mask.sum()) for name, weight in pruner.masks.items()}
    layer, both = kept["weight_ih_l1"] + kept["weight_hh_l1"], 2 * 4 * 8 * 8
    assert layer == -(-both // 10)
    assert sum(kept.values()) == 960 - round(0.8 * 960)
