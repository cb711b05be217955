"""Prove that units can be removed: remove some from a copy, and compare with a copy where nobody reads them.

The graph of a model is found by rules of thumb. What is pruned by it must not rest on them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer, distance
from lightning_prune.coupling.remove import remove
from lightning_prune.coupling.units import Group, alive_along, tensors_of

_TOLERANCE = 1e-3
"""Largest difference of two outputs, as a share of the largest output; a wrong removal is off by the order of 1."""
_DRAWS = 8
"""How often other weights are drawn for units that make no difference with the first."""


def removable(model: nn.Module, example_inputs: Any, groups: Sequence[Group]) -> tuple[list[Group], dict[str, str]]:
    """Return the groups whose units can be removed without a trace, and for the others the reason.

    Almost half the units of each group are taken out of a copy whose weights are drawn at random, so that no weight
    which happens to be zero hides a mistake. The model given is not changed.
    """
    scrambled = copy.deepcopy(model)
    _scramble(scrambled)
    refused: dict[str, str] = {}

    def sift(some: Sequence[Group]) -> list[Group]:
        reason = _mistake(scrambled, example_inputs, some)
        if reason is None:
            return list(some)
        if len(some) == 1:
            _refuse(some[0], reason, refused)
            return []
        half = len(some) // 2
        found = [*sift(some[:half]), *sift(some[half:])]
        return found if len(found) < len(some) else _one_by_one(scrambled, example_inputs, found, refused)

    proved: list[Group] = []
    for group in sift(groups) if groups else []:
        shown = _shows(scrambled, example_inputs, group)
        reason = None if shown else _with_other_weights(model, example_inputs, group)
        if reason is None:
            proved.append(group)
        else:
            _refuse(group, reason, refused)
    return proved, refused


def _shows(model: nn.Module, example_inputs: Any, group: Group) -> bool:
    """Whether the outputs change where units are not read, so that a wrong removal would be seen."""
    keep = _some(group.units)
    if bool(keep.all()):  # a single unit stays in any case
        return True
    unread = copy.deepcopy(model)
    silence(unread, [group], [keep])
    return distance(answer(model, example_inputs), answer(unread, example_inputs))[1] > _TOLERANCE


def _with_other_weights(model: nn.Module, example_inputs: Any, group: Group) -> str | None:
    """Try a group alone with other random weights, as its units may all be off with one draw."""
    for seed in range(1, 1 + _DRAWS):
        scrambled = copy.deepcopy(model)
        _scramble(scrambled, seed)
        reason = _mistake(scrambled, example_inputs, [group])
        if reason is not None or _shows(scrambled, example_inputs, group):
            return reason
    return "no trial shows whether anything depends on its units"


def _one_by_one(model: nn.Module, example: Any, groups: list[Group], refused: dict[str, str]) -> list[Group]:
    """Keep each group that still goes together with those before it."""
    kept: list[Group] = []
    for group in groups:
        reason = _mistake(model, example, [*kept, group])
        if reason is None:
            kept.append(group)
        else:
            _refuse(group, reason, refused)
    return kept


def _refuse(group: Group, reason: str, refused: dict[str, str]) -> None:
    refused.update({part.name: reason for part in group.of("out")})


def _mistake(model: nn.Module, example_inputs: Any, groups: Sequence[Group]) -> str | None:
    keeps = [_some(group.units) for group in groups]
    unread, smaller = copy.deepcopy(model), copy.deepcopy(model)
    silence(unread, groups, keeps)
    try:
        remove(smaller, groups, keeps)
        _, relative = distance(answer(unread, example_inputs), answer(smaller, example_inputs))
    except Exception as error:  # whatever the model's own code raises is the answer to the question
        return f"without some of them the model fails: {type(error).__name__}: {str(error).splitlines()[0]}"
    if relative > _TOLERANCE:
        return "its channels act on others by a way that the graph does not show"
    return None


def _some(units: int) -> Tensor:
    """Return which units to keep: of the first half every other one, of the second all but a third.

    Fewer of the first half than of the second, so that a model which splits its channels in the middle shows it.
    """
    half, keep = units // 2, torch.ones(units, dtype=torch.bool)
    keep[:half:2] = False
    keep[half + 2 :: 3] = False
    return keep


@torch.no_grad()
def silence(model: nn.Module, groups: Sequence[Group], keeps: Sequence[Tensor]) -> None:
    """Zero whatever reads a unit that is not kept."""
    tensors = tensors_of(model)
    for group, keep in zip(groups, keeps, strict=True):
        reads = Group(group.name, group.units, tuple(group.of("in")))
        for name, dims in alive_along([reads], [keep], {n: t.shape for n, t in tensors.items()}).items():
            for dim, alive in dims.items():
                dead = (~alive).nonzero().flatten().to(tensors[name].device)
                tensors[name].index_fill_(dim, dead, 0.0)


@torch.no_grad()
def _scramble(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors_of(model).items():
        if not tensor.is_floating_point():
            continue
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1:
            drawn *= math.sqrt(2.0 / max(1, tensor[0].numel()))
        elif isinstance(tensor, nn.Parameter):
            drawn = drawn * 0.2 + (0.0 if name.endswith("bias") or "bias_" in name else 1.0)
        elif name.endswith("running_var"):
            drawn = drawn.abs() * 0.2 + 0.8
        elif name.endswith("running_mean"):  # small: a large one leaves nothing of what comes in, nor of a mistake
            drawn = drawn * 0.2
        else:
            continue
        tensor.copy_(drawn.to(tensor))
