"""What stands out, against a slow version: by how much, no more than asked for, and what it comes to in a run."""

from __future__ import annotations

import re
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.callbacks.ending import warn_of_less
from lightning_prune.criterion import APoZ, Magnitude
from lightning_prune.pattern import Block, Channel, Element, NofM, Row
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import Iterative, LayerByLayer, OneShot
from lightning_prune.scope import GlobalRanking, Uniform
from lightning_prune.selection import BelowMean, Units
from tests.helpers import same


def slowly(scores: list[Tensor], alive: list[Tensor], holds: list[list[int]], drop: int, deviations: float) -> Any:
    """Return which units stay, found one by one, and the threshold."""
    flat = [float(s) for t in scores for s in t.flatten()]
    lives = [bool(a) for t in alive for a in t.flatten()]
    sizes = [n for some in holds for n in some]
    living = [s for s, a in zip(flat, lives, strict=True) if a]
    mean = sum(living) / len(living)
    threshold = mean - deviations * (sum((s - mean) ** 2 for s in living) / len(living)) ** 0.5
    room = drop - sum(n for n, a in zip(sizes, lives, strict=True) if not a)
    keep = list(lives)
    for n in sorted(range(len(flat)), key=lambda n: flat[n]):
        if lives[n] and flat[n] < threshold and sizes[n] <= room:
            keep[n] = False
            room -= sizes[n]
    parts = torch.tensor(keep).split([t.numel() for t in scores])
    return [part.view(t.shape) for part, t in zip(parts, scores, strict=True)], threshold


@pytest.mark.parametrize("deviations", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("drop", [0, 5, 17, 60])
@pytest.mark.parametrize("absolute", [False, True])
def test_it_is_the_slow_version(deviations: float, drop: int, absolute: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in ((4, 7), (30,), (2, 1))]
    values = values if absolute else [v.abs() for v in values]
    alive = [torch.rand(v.shape, generator=generator) > 0.05 for v in values]
    pool = [Units(f"w{n}", v, absolute, a) for n, (v, a) in enumerate(zip(values, alive, strict=True))]
    dead = sum(int((~a).sum()) for a in alive)
    keeps, threshold = BelowMean(deviations)(pool, max(drop, dead), 0.5)
    wanted, at = slowly(
        [v.abs() for v in values], alive, [[1] * v.numel() for v in values], max(drop, dead), deviations
    )
    assert same(keeps, wanted)
    assert threshold == pytest.approx(at, rel=1e-9)
    assert sum(int((~k).sum()) for k in keeps) <= max(drop, dead)


def test_units_of_unequal_size_hold_no_more_than_is_asked_for() -> None:
    scores = torch.tensor([0.1, 0.2, 0.3, 5.0, 5.1, 5.2, 4.9, 5.3])
    sizes = torch.tensor([3, 4, 2, 3, 3, 3, 3, 3])
    for drop, gone in ((24, [0, 1, 2]), (9, [0, 1, 2]), (8, [0, 1]), (7, [0, 1]), (6, [0]), (2, []), (0, [])):
        (keep,), _ = BelowMean()([Units("w", scores, weights=sizes)], drop, 0.5)
        assert (~keep).nonzero().flatten().tolist() == gone, drop


def test_where_all_are_equal_or_none_is_left_nothing_goes() -> None:
    (keep,), _ = BelowMean()([Units("w", torch.full((9,), 0.1))], 9, 1.0)
    assert keep.all()
    (keep,), _ = BelowMean()([Units("w", torch.ones(4), alive=torch.zeros(4, dtype=torch.bool))], 4, 1.0)
    assert not keep.any()


def net(sizes: tuple[int, ...] = (6, 20, 16, 3)) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [p for a, b in pairwise(sizes) for p in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])


def run(model: nn.Sequential, pruner: Pruner, steps: int = 6) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner.attach(model, 6)
    for step in range(1, steps + 1):
        model(torch.randn(20, 6, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(step, [optimizer])


def test_with_apoz_it_is_the_rule_of_the_paper_and_the_report_says_what_it_came_to() -> None:
    model, before = net(), net()
    pattern = Channel(example_inputs=torch.zeros(2, 6))
    pruner = Pruner(OneShot(0.9, 4), APoZ(window=4), pattern, Uniform(), BelowMean(1.0))
    run(model, pruner)
    x = torch.cat([torch.randn(20, 6, generator=torch.Generator().manual_seed(step)) for step in range(1, 5)])
    with torch.no_grad():
        for name, depth in (("0.bias", 2), ("2.bias", 4)):
            apoz = (before[:depth](x) == 0).double().mean(0)
            goes = apoz > apoz.mean() + apoz.std(correction=0)
            assert 0 < int(goes.sum()) < len(goes) / 2
            assert torch.equal(pruner.masks[name].mask, ~goes), name
    report = pruner.report()
    assert report.zeros == sum(w.pruned for n, w in pruner.masks.items() if n.endswith("weight"))
    assert 0.1 < report.sparsity < 0.6
    assert f"that is the most: {BelowMean(1.0)} may take less" in report.plan()
    final = pruner.strip()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_less("pruning", pruner, final)


def test_a_run_that_ended_before_the_schedule_did_is_still_warned_of() -> None:
    pruner = Pruner(OneShot(0.9, 5), scope=Uniform(), selection=BelowMean())
    run(net(), pruner, steps=4)
    with pytest.warns(UserWarning, match="the run ended before end_step=5"):
        warn_of_less("pruning", pruner, pruner.strip())


def test_the_schedule_says_how_often_and_how_much_at_most() -> None:
    found: list[list[int]] = []
    for schedule in (OneShot(0.9, 2), Iterative(0.9, 2, 6, 3), OneShot(0.05, 2)):
        pruner = Pruner(schedule, Magnitude(), Row(), Uniform(), BelowMean(0.8))
        run(net(), pruner)
        found.append([weight.pruned for weight in pruner.masks.values()])
    once, often, bounded = found
    assert all(a <= b for a, b in zip(once, often, strict=True))
    assert sum(often) > sum(once) > sum(bounded)
    sizes = [120, 320, 48]
    assert all(number <= round(0.05 * size) for number, size in zip(bounded, sizes, strict=True))


def test_what_competes_is_the_pool() -> None:
    """Under GlobalRanking the mean is that of all layers together."""
    masks: list[Any] = []
    for scope in (GlobalRanking(floor=0), Uniform()):
        pruner = Pruner(OneShot(0.9, 1), scope=scope, selection=BelowMean(0.5))
        pruner.attach(net(), 4)
        pruner.after_step(1)
        masks.append({name: weight.mask for name, weight in pruner.masks.items()})
    assert not same(*masks)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "1", None])
def test_G13_deviations_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="deviations="):
        BelowMean(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": OneShot(0.5, 1), "pattern": NofM(2, 4)}, "pattern=NofM(n=2, m=4) needs an exact selection"),
        ({"schedule": LayerByLayer(0.5, 1, 9)}, "selection=BelowMean(deviations=1.0) does not keep to one"),
    ],
)
def test_what_needs_a_number_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Pruner(selection=BelowMean(), scope=Uniform(), **options)


@pytest.mark.parametrize("pattern", [Element(), Block(2, 4)], ids=str)
def test_weights_and_blocks_too(pattern: Any) -> None:
    pruner = Pruner(OneShot(0.9, 1), pattern=pattern, scope=Uniform(), selection=BelowMean())
    pruner.attach(net(), 4)
    pruner.after_step(1)
    assert all(0 < weight.pruned < 0.4 * weight.size for weight in pruner.masks.values() if weight.size > 50)
