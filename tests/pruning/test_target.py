"""A sparsity for so many MACs or parameters, or for so many times faster, of small nets of several kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.budget import MACs
from lightning_prune.cost import count
from lightning_prune.pattern import Channel, Element
from lightning_prune.pruning import Pruner, target
from lightning_prune.pruning.target import CostTarget, UnreachableError, sparsity_for
from lightning_prune.pruning.trial import Trial
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.targets import Targets
from tests.rounds.conftest import Net

IMAGES = torch.linspace(-1, 1, 128).view(2, 1, 8, 8)
ROWS = torch.linspace(-1, 1, 40).view(4, 10)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 3))


def pruner(example: torch.Tensor, **ideas: Any) -> Pruner:
    return Pruner(ideas.pop("schedule", OneShot(0.5, 0)), pattern=Channel(example_inputs=example), **ideas)


@pytest.mark.parametrize(("net", "example"), [(Net, IMAGES), (mlp, ROWS)])
@pytest.mark.parametrize("kind", ["macs", "parameters"])
@pytest.mark.parametrize("asked", [0.7, 0.3])
@pytest.mark.parametrize("schedule", [OneShot(0.5, 0)])
def test_a_count_is_met_by_a_copy_and_not_by_a_little_less(
    net: Any, example: torch.Tensor, kind: Any, asked: float, schedule: Any
) -> None:
    torch.manual_seed(0)
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ideas = pruner(example, schedule=schedule, scope=Uniform())
    found = sparsity_for(model, ideas, CostTarget(kind, asked), example)
    trial = Trial(model, ideas)

    def share(sparsity: float) -> float:
        return getattr(count(trial.smaller(sparsity), example), kind) / getattr(count(model, example), kind)

    assert share(found.sparsity) == found.share <= asked
    assert share(found.sparsity - 0.06) > asked  # a step of whole units less
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("mask" in name for name, _ in model.named_buffers())


def test_a_copy_takes_the_way_of_the_schedule() -> None:
    """Of groups whose units are worth the same on the whole, one that has lost some gives up less from then on."""
    torch.manual_seed(0)
    model = mlp()
    gradual = Trial(model, pruner(ROWS, schedule=Polynomial(0.5, 0.05, 0.4, 0.004))).smaller(0.6)
    at_once = Trial(model, pruner(ROWS)).smaller(0.6)
    assert count(gradual, ROWS).parameters == pytest.approx(count(at_once, ROWS).parameters, rel=0.05)
    assert [tuple(p.shape) for p in gradual.parameters()] != [tuple(p.shape) for p in at_once.parameters()]


@pytest.mark.parametrize("excluded", ["left", "hidden"])
def test_what_cannot_be_met_says_the_most_and_what_stays_whole(excluded: str) -> None:
    ideas = pruner(IMAGES, targets=Targets(exclude=(excluded,)))
    with pytest.raises(UnreachableError, match=r"^macs=0\.001 cannot be met: macs=0\.\d+ is the most") as raised:
        sparsity_for(Net(), ideas, CostTarget("macs", 0.001), IMAGES)
    assert f"{excluded}.weight" in str(raised.value)
    assert "bias" not in str(raised.value)
    assert "one unit left in each of" in str(raised.value)


@pytest.mark.parametrize(("net", "example"), [(Net, IMAGES), (mlp, ROWS)])
def test_a_copy_goes_by_the_budget_of_the_pruner(net: Any, example: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = net()
    trial = Trial(model, pruner(example, budget=MACs(), scope=Uniform()))
    smaller = trial.smaller(0.5)
    share = count(smaller, example).macs / count(model, example).macs
    assert share == pytest.approx(0.5, abs=0.06)
    gone, units = trial.gone(0.5)
    assert gone == pytest.approx(1 - share)
    assert 0.0 < units < 0.5


def test_frozen_layers_stay_whole_in_a_copy() -> None:
    model = Net()
    model.hidden.weight.requires_grad_(False)
    smaller: Any = Trial(model, pruner(IMAGES)).smaller(1.0)
    assert smaller.hidden.weight.shape[0] == 20
    assert smaller.first.weight.shape[0] == 1


def times(of_parameters: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a forward take what its parameters say, and return the list of all measured shares."""
    seen: list[float] = []

    def latency(models: Any, inputs: Any, repeats: int) -> list[float]:
        sizes = [float(sum(p.numel() for p in model.parameters())) for model in models]
        seen.append(of_parameters(sizes[1] / sizes[0], len(seen)))
        return [1.0, seen[-1]]

    monkeypatch.setattr(target, "latency", latency)
    return seen


def test_a_speed_up_is_searched_by_latency_and_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = times(lambda share, _: 0.2 + 0.8 * share, monkeypatch)
    found = sparsity_for(Net(), pruner(IMAGES), CostTarget("speedup", 2), IMAGES)
    assert 0.45 < found.share <= 0.5
    assert found.share == seen[-1]
    assert seen[-16:] == [found.share] * 16  # the second measurement


def test_a_speed_up_that_does_not_hold_takes_a_little_more(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = times(lambda share, number: share * (1.0 if number < 80 else 1.2), monkeypatch)
    found = sparsity_for(Net(), pruner(IMAGES), CostTarget("speedup", 2), IMAGES)
    assert found.share <= 0.5
    assert any(share > 0.5 for share in seen[80:])


def test_a_speed_up_out_of_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    times(lambda share, _: 0.6 + 0.4 * share, monkeypatch)
    with pytest.raises(UnreachableError, match=r"speedup=2 cannot be met: speedup=1\.\d+ is the most.*larger batch"):
        sparsity_for(Net(), pruner(IMAGES), CostTarget("speedup", 2), IMAGES)


@pytest.mark.parametrize(
    ("kind", "value"), [("macs", 0), ("macs", 1), ("parameters", 2), ("speedup", 1), ("speedup", float("nan"))]
)
def test_targets_out_of_range(kind: Any, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{kind}="):
        CostTarget(kind, value)


def test_single_weights_make_nothing_smaller() -> None:
    with pytest.raises(ValueError, match="use Channel"):
        Trial(Net(), Pruner(OneShot(0.5, 0), pattern=Element()))
