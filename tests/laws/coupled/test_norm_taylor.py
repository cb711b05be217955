"""Norms' scales times their gradients: the running mean by hand, units with several norms, and who is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.criterion import NormTaylor, Site
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import OneShot
from lightning_prune.scope import Uniform
from tests.helpers import masks_of
from tests.laws.coupled.nets import Traced, coupling, net
from tests.laws.coupled.units import alive_units

DECAY = 0.75


def trained(model: nn.Module, pattern: Any, inputs: Tensor, steps: int = 3) -> tuple[Pruner, list[dict[str, Tensor]]]:
    """Prune half of the units after some steps; return what the scales, and their gradients, came to at each."""
    pruner = Pruner(OneShot(0.5, steps), NormTaylor(window=steps, decay=DECAY), pattern, Uniform())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner.attach(model, steps + 1)
    pruner.update(0)
    changes: list[dict[str, Tensor]] = []
    for step in range(steps):
        optimizer.zero_grad()
        model(inputs + step).square().sum().backward()
        pairs = {n: (p.detach().double(), p.grad) for n, p in model.named_parameters() if p.dim() == 1}
        changes.append({n: (value * grad) ** 2 for n, (value, grad) in pairs.items() if grad is not None})
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(step + 1, [optimizer])
    return pruner, changes


def running(changes: list[dict[str, Tensor]], name: str) -> Tensor:
    mean = torch.zeros_like(changes[0][name])
    for change in changes:
        mean = DECAY * mean + (1 - DECAY) * change[name]
    return mean


def test_a_score_by_hand() -> None:
    criterion = NormTaylor(decay=0.5)
    seen = criterion.observe(torch.tensor([2.0, -1.0]), torch.tensor([3.0, 0.5]))
    assert seen["change"].tolist() == [36.0, 0.25]
    asked = criterion.at(Site("norm.weight", 7, {"change": torch.tensor([1.0, 4.0])}))
    assert asked(torch.ones(2), None).tolist() == [1.0, 4.0]
    with pytest.raises(ValueError, match=r"has seen nothing of 'norm\.weight'"):
        criterion.at(Site("norm.weight", 7))(torch.ones(2), None)


@pytest.mark.parametrize("values", [{"window": 0}, {"decay": 1.0}, {"decay": -0.1}])
def test_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))}="):
        NormTaylor(**values)


def test_units_with_the_smallest_running_means_go() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3))
    inputs = torch.randn(4, 2, 7, 7)
    with torch.no_grad():
        dict(model.named_parameters())["1.weight"].copy_(torch.rand(8) + 0.5)
    pruner, changes = trained(model, Channel(example_inputs=inputs), inputs)
    alive = pruner.masks["0.weight"].mask.flatten(1).any(1)
    expected = running(changes, "1.weight").argsort(descending=True)
    assert 0 < int(alive.sum()) < 8
    assert set(alive.nonzero().flatten().tolist()) == set(expected[: int(alive.sum())].tolist())


def test_norms_of_all_layers_that_share_a_channel_add_up() -> None:
    """What the largest sums are differs from what the first norm alone would say."""
    torch.manual_seed(1)
    model = net("convolutions")
    group = next(g for g in coupling("convolutions").groups if g.name == "stem.0.weight")
    norms = [part.name for part in group.of("norm")]
    assert len(norms) > 1
    with torch.no_grad():
        dict(model.named_parameters())[norms[0]].mul_(torch.linspace(1.3, 0.7, 8))
        dict(model.named_parameters())[norms[1]].mul_(torch.linspace(0.3, 3.0, 8))
    pruner, changes = trained(model, Traced("convolutions"), torch.randn(4, 3, 8, 8))
    alive = set(alive_units(group, masks_of(pruner)).nonzero().flatten().tolist())
    total = sum(running(changes, name) for name in norms)
    first = running(changes, norms[0])
    assert isinstance(total, Tensor)
    kept = [set(means.argsort(descending=True)[: len(alive)].tolist()) for means in (total, first)]
    assert alive == kept[0]
    assert kept[0] != kept[1]


def test_what_has_no_norm_behind_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for pattern in (Channel(example_inputs=torch.zeros(1, 3)), Element()):
        with pytest.raises(ValueError, match=r"knows of no norm layer behind '0\.weight'"):
            Pruner(OneShot(0.5, 3), NormTaylor(), pattern).attach(model, 10)
