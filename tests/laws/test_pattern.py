"""Laws of every pattern under conf/pruner/pattern whose units lie in one weight; single ones are in tests/laws/pattern.

The laws of units that are slices of many weights are in tests/laws/coupled.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prune.pruning import Pruner
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Layer
from tests.helpers import conv_net, criteria_without_norm, ideas, masks_of, pattern_at, patterns

PATTERNS = pytest.mark.parametrize("pattern", patterns())
SHAPES = [(1, 1), (1, 9), (9, 1), (8, 8), (7, 10), (6, 5, 3, 3), (4, 1, 3, 3), (3, 4, 5)]
TRANSPOSED = "2.weight"
"""The transposed convolution of `conv_net`, whose input dimension comes first."""


def canonical(name: str, tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1) if name == TRANSPOSED else tensor


def largest_unit(pattern: Any, shape: torch.Size) -> int:
    return int(torch.as_tensor(pattern.weights_per_unit(shape)).max())


@PATTERNS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_units_share_the_weights_out(pattern: Any, shape: tuple[int, ...]) -> None:
    at = pattern_at(pattern)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    units = at.units(scores)
    sizes = torch.as_tensor(at.weights_per_unit(scores.shape)).expand(units.shape)
    covered = torch.zeros(shape, dtype=torch.int64)
    for index in range(units.numel()):
        one = torch.zeros(units.numel(), dtype=torch.bool)
        one[index] = True
        mask = at.expand(one.view(units.shape), scores.shape)
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == int(sizes.flatten()[index])
        covered += mask
    assert torch.equal(covered, torch.ones_like(covered))


@PATTERNS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_of_units(pattern: Any, shape: tuple[int, ...]) -> None:
    at = pattern_at(pattern)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    before = scores.clone()
    units = at.units(scores)
    assert torch.isfinite(units).all()
    assert torch.equal(scores, before)
    assert torch.equal(at.units(scores), units), "deterministic"
    protected = at.protected(units)
    assert protected is None or (protected.dtype == torch.bool and protected.shape == units.shape)
    if at.single:
        assert torch.equal(units, scores)
        assert protected is None
    keep = torch.rand(units.shape, generator=torch.Generator().manual_seed(2)) > 0.5
    mask = at.expand(keep, scores.shape)
    assert torch.equal(at.units(mask.float()) > 0, keep), "units of an expanded mask are alive where they were kept"


@PATTERNS
@pytest.mark.parametrize("scope", ideas("scope"))
@pytest.mark.parametrize("criterion", criteria_without_norm())
def test_G3_G5_every_pool_reaches_its_budget_in_whole_units(pattern: Any, scope: Any, criterion: Any) -> None:
    model = conv_net()
    schedule = Polynomial(0.8, begin_step=0, end_step=6, pruning_frequency=3, initial_sparsity=0.3)
    pruner = Pruner(schedule, criterion=criterion, pattern=pattern, scope=scope)
    pruner.attach(model)
    generator = torch.Generator().manual_seed(5)
    before = masks_of(pruner)
    for step in (0, 3, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator) * (parameter != 0))
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        layers = [
            Layer(name, tuple(canonical(name, mask).shape), mask.numel(), int((~mask).sum()))
            for name, mask in before.items()
        ]
        assert pruner.after_step(step)
        now = masks_of(pruner)
        for pool in scope(layers, schedule.sparsity(step)):
            dropped = sum(int((~now[name]).sum()) for name in pool.names)
            largest = max(
                largest_unit(pattern_at(pattern, name), canonical(name, now[name]).shape) for name in pool.names
            )
            spared = [
                largest_unit(pattern_at(pattern, name), canonical(name, now[name]).shape)
                for name in pool.names
                if getattr(pattern_at(pattern, name), "spares", False)
            ]
            most = sum(now[name].numel() for name in pool.names) - sum(spared)
            assert abs(dropped - min(pool.drop, most)) <= largest / 2
        for name, mask in now.items():
            at = pattern_at(pattern, name)
            whole = canonical(name, mask)
            assert torch.equal(at.expand(at.units(whole.float()) > 0, whole.shape), whole)
            assert not (mask & ~before[name]).any()
            assert torch.equal(mask, pruner.masks[name].parameter != 0)
        before = now
