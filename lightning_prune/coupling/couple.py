"""The coupling of a model: groups found in its graph and in its attention, each proved by a trial."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from lightning_prune.coupling.example import copy_of, example_of, in_full
from lightning_prune.coupling.graph import groups_of
from lightning_prune.coupling.heads import heads_of
from lightning_prune.coupling.reach import both_ways, unreached, widths_unread
from lightning_prune.coupling.trial import removable
from lightning_prune.coupling.units import Coupling, Group, tensors_of

Kind = Literal["channel", "head"]


def couple(model: nn.Module, example_inputs: Any = None, kinds: tuple[Kind, ...] = ("channel", "head")) -> Coupling:
    """Return the groups of units of a model that can be removed, and why other weights are in none.

    All of it happens on copies: the model comes out as it was.

    Args:
        model: the model.
        example_inputs: what one forward takes; None for the module's `example_input_array`.
        kinds: output channels and hidden units, attention heads.

    Raises:
        ValueError: there are no example inputs, or the model does not run on them.
        ModuleNotFoundError: Torch-Pruning is not installed.
    """
    with eagerly(model):
        return _couple(model, example_of(model, example_inputs), kinds)


def _couple(model: nn.Module, example: Any, kinds: tuple[Kind, ...]) -> Coupling:
    plain, example = in_full(plain_copy(model).eval(), example)
    evaluated, trained = both_ways(plain, example)
    reached = (evaluated,) if trained is None else (evaluated, trained)
    modes = (False, True)[: len(reached)]
    groups, refused = list[Group](), dict[str, str]()
    if "channel" in kinds:
        groups, refused = groups_of(plain_copy(plain), example, None if trained is None else plain_copy(plain))
    heads = heads_of(plain) if "head" in kinds else []
    taken = {(part.name, part.dim) for group in heads for part in group.parts}
    groups = [g for g in groups if not any((p.name, p.dim) in taken for p in g.parts)]
    shapes = {name: tensor.shape for name, tensor in tensors_of(plain).items()}
    groups, misread = _sound(groups, shapes, widths_unread(plain, reached))
    refused |= misread
    proved, failed = removable(plain, example, [*groups, *heads], modes)
    again = [group for group in heads_of(plain, every_size=True) if group.name in failed] if heads else []
    if again:
        proved, still = removable(plain, example, again, modes, proved)
        failed |= still
    inside = {part.name for group in proved for part in group.of("out")}
    why = refused | failed | unreached(plain, reached)
    return Coupling(tuple(proved), {name: reason for name, reason in why.items() if name not in inside})


def _sound(
    groups: list[Group], shapes: Mapping[str, torch.Size], unread: Mapping[int, str]
) -> tuple[list[Group], dict[str, str]]:
    """Return the groups that can be tried, and why others are not: a misread graph, a reader that is not known."""
    sound, refused = list[Group](), dict[str, str]()
    for group in groups:
        reason = None
        widths = {shapes[part.name][part.dim] for part in group.of("out", "in")} & set(unread)
        if not all(int(part.index.max()) < shapes[part.name][part.dim] for part in group.parts):
            reason = "the graph finds channels that are not there"
        elif widths:
            reason = f"{unread[min(widths)]} is not reached with the example inputs, and may read its channels"
        if reason is None:
            sound.append(group)
        else:
            refused |= dict.fromkeys((part.name for part in group.of("out")), reason)
    return sound, refused


def eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """Have compiled modules run as they are written: compiled code would be made anew for every trial."""
    compiled = any(
        hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in model.modules()
    )
    stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    return stance("force_eager") if compiled and stance is not None else nullcontext()


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy for experiments, without the Trainer that a LightningModule may hold."""
    trainer = getattr(model, "_trainer", None)
    fabric = getattr(model, "_fabric", None)
    try:
        for name in ("_trainer", "_fabric"):
            if name in model.__dict__:
                model.__dict__[name] = None
        return copy_of(model).requires_grad_(True)
    finally:
        for name, value in (("_trainer", trainer), ("_fabric", fabric)):
            if name in model.__dict__:
                model.__dict__[name] = value
