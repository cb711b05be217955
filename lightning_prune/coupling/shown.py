"""Whether outputs depend on units at all: for many groups at once, by the gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import call, own_randomness, tensors
from lightning_prune.coupling.training import mode
from lightning_prune.coupling.units import Group, slices_of

_DIRECTIONS = 3  # along one alone it may hardly move by chance


def changes(
    model: nn.Module, example_inputs: Any, groups: Sequence[Group], keeps: Sequence[Tensor], training: bool = False
) -> list[float]:
    """Estimate for each group how far outputs move where the units that are not kept are no longer read.

    To first order, and along random directions: a large number says that they move, a small one says nothing.

    Args:
        model: its parameters require gradients.
        example_inputs: what one forward takes.
        groups: the groups.
        keeps: for each a bool per unit.
        training: in training mode; else in evaluation mode.

    Returns:
        The root of the mean squared difference of an output, as a share of the largest; all 0 where there are no
        gradients to be had.
    """
    names = sorted({part.name for group in groups for part in group.of("in")})
    parameters = dict(model.named_parameters())
    read = [parameters[name] for name in names]
    try:
        with torch.enable_grad(), own_randomness(), mode(model, training):
            torch.manual_seed(0)
            outputs = [t for t in tensors(call(model, example_inputs)) if t.requires_grad and t.numel()]
            totals = [torch.stack([_along(t, seed) for t in outputs]).sum() for seed in range(_DIRECTIONS)]
            gradients = [torch.autograd.grad(t, read, retain_graph=True, allow_unused=True) for t in totals]
    except Exception:  # code that cannot be differentiated; the caller has another way to find out
        return [0.0] * len(groups)
    slopes = [
        {n: g * p.detach() for n, g, p in zip(names, along, read, strict=True) if g is not None} for along in gradients
    ]
    return [max(_moved(group, ~keep, slope) for slope in slopes) for group, keep in zip(groups, keeps, strict=True)]


def _along(output: Tensor, seed: int) -> Tensor:
    """Return the output along a random direction, so that what moves it by a share moves this by about as much."""
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed)).to(output)
    largest = output.detach().abs().max().clamp_min(1e-12)
    return (output * direction).sum() / (largest * output.numel() ** 0.5)


def _moved(group: Group, dead: Tensor, slope: Mapping[str, Tensor]) -> float:
    known = [part for part in group.of("in") if part.name in slope]
    parts = [slices_of(slope[part.name], part)[dead.to(slope[part.name].device)] for part in known]
    return abs(float(sum(part.cpu().double().sum() for part in parts)))  # MPS has no doubles
