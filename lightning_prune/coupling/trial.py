"""Prove that units can be removed: remove some from a copy, and compare with what the model gives where they are dead.

The graph of a model is found by rules of thumb. What is pruned by it must not rest on them.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer, copy_of, distance
from lightning_prune.coupling.remove import remove
from lightning_prune.coupling.scramble import level, scramble
from lightning_prune.coupling.shown import changes
from lightning_prune.coupling.units import Group, Role, alive_along, tensors_of

_TOLERANCE = 1e-3
"""Largest difference of two outputs, as a share of the largest output; a wrong removal is off by the order of 1."""
_DRAWS = 8
"""How often other weights are drawn for units that make no difference with the first."""
_READ: tuple[Role, ...] = ("in",)
_DEAD: tuple[Role, ...] = ("in", "out", "bias", "norm")


@dataclass(frozen=True)
class _Drawn:
    """A copy of a model with weights drawn at random, so that none which happens to be zero hides a mistake.

    Attributes:
        model: comes out of every trial as it was.
        example: what one forward takes.
        modes: the ways through the model: in evaluation mode (False), in training mode (True).
    """

    model: nn.Module
    example: Any
    modes: tuple[bool, ...]

    def answers(self, smaller: nn.Module | None = None) -> list[Tensor]:
        """Return what the model, or a smaller one in its place, gives in all modes."""
        return [t for training in self.modes for t in answer(smaller or self.model, self.example, training)]


def removable(
    model: nn.Module,
    example_inputs: Any,
    groups: Sequence[Group],
    modes: tuple[bool, ...] = (False,),
    proved: Sequence[Group] = (),
) -> tuple[list[Group], dict[str, str]]:
    """Return the groups whose units can be removed without a trace, and for the others the reason.

    Almost half the units of all groups are taken out of one copy. Where that fails the groups are halved, until those
    that fail are found. The model given is not changed.

    Args:
        model: the model.
        example_inputs: what one forward takes.
        groups: what is to be proved.
        modes: the ways through the model that are tried: in evaluation mode (False), in training mode (True).
        proved: groups that were proved before; those returned go together with them.
    """
    if not groups:
        return [], {}
    drawn, refused = _draw(model, example_inputs, modes), dict[str, str]()
    found = _sift(drawn, list(proved), sorted(groups, key=_kind), refused, [])
    wrong = _unproved(model, drawn, found)
    for group, reason in wrong:
        _refuse(group, reason, refused)
    right = [*proved, *(g for g in found if not any(g is other for other, _ in wrong))]
    return [g for g in (*proved, *groups) if any(g is other for other in right)], refused


def _draw(model: nn.Module, example_inputs: Any, modes: tuple[bool, ...], seed: int = 0) -> _Drawn:
    scrambled = copy_of(model)
    scramble(scrambled, seed)
    level(scrambled, example_inputs)
    return _Drawn(scrambled, example_inputs, modes)


def _kind(group: Group) -> str:
    """Return a name that layers of the same kind in all blocks share: they fail together, and are tried together."""
    return re.sub(r"\d+", "", group.name)


def _sift(
    drawn: _Drawn, base: list[Group], some: Sequence[Group], refused: dict[str, str], failing: list[Group]
) -> list[Group]:
    """Return those that go together with the base.

    Args:
        drawn: the model.
        base: groups that go together.
        some: the groups in question.
        refused: takes the reasons of those that do not.
        failing: those that failed one after the other just now. While there are any, the next are tried one by one.
    """
    if len(some) == 1:
        reason = _mistake(drawn, some) or (_mistake(drawn, [*base, *some]) if base else None)
        if reason is None:
            failing.clear()
            return list(some)
        failing.append(some[0])
        _refuse(some[0], reason, refused)
        return []
    if not failing and _mistake(drawn, [*base, *some]) is None:
        return list(some)
    half = len(some) // 2
    found = _sift(drawn, base, some[:half], refused, failing)
    return [*found, *_sift(drawn, [*base, *found], some[half:], refused, failing)]


def _unproved(model: nn.Module, drawn: _Drawn, groups: Sequence[Group]) -> list[tuple[Group, str]]:
    """Return of groups that passed their trial those of which it shows nothing, or not with other weights either."""
    waiting, wrong = _unseen(drawn, groups), list[tuple[Group, str]]()
    for seed in range(1, 1 + _DRAWS):
        if not waiting:
            break
        other = _draw(model, drawn.example, drawn.modes, seed)
        if _mistake(other, waiting) is not None:
            reasons = [(group, _mistake(other, [group])) for group in waiting]
            wrong += [(group, reason) for group, reason in reasons if reason is not None]
            waiting = [group for group, reason in reasons if reason is None]
        waiting = _unseen(other, waiting)
    return [*wrong, *((group, "no trial shows whether anything depends on its units") for group in waiting)]


def _unseen(drawn: _Drawn, groups: Sequence[Group]) -> list[Group]:
    """Return the groups whose units make no difference to the outputs, as far as one can see."""
    left = list(groups)
    for training in drawn.modes:
        if left:
            keeps = [_some(group.units) for group in left]
            moved = changes(drawn.model, drawn.example, left, keeps, training)
            left = [g for g, m, k in zip(left, moved, keeps, strict=True) if m <= _TOLERANCE and not bool(k.all())]
    if not left:
        return []
    before = drawn.answers()
    return [group for group in left if not _moves(drawn, group, before)]


def _moves(drawn: _Drawn, group: Group, before: list[Tensor]) -> bool:
    with silenced(drawn.model, [group], [_some(group.units)], _READ):
        return distance(before, drawn.answers())[1] > _TOLERANCE


def shows(model: nn.Module, example_inputs: Any, group: Group, modes: tuple[bool, ...] = (False,)) -> bool:
    """Whether the outputs change where units are not read, so that a wrong removal would be seen."""
    drawn = _Drawn(model, example_inputs, modes)
    return bool(_some(group.units).all()) or _moves(drawn, group, drawn.answers())  # a single unit stays in any case


def _refuse(group: Group, reason: str, refused: dict[str, str]) -> None:
    refused.update({part.name: reason for part in group.of("out")})


def _mistake(drawn: _Drawn, groups: Sequence[Group]) -> str | None:
    """Return what is wrong with removing units of these groups: all that is left must be as if they were dead.

    They are dead where nobody reads them, and where masks have zeroed all of their entries. Code that mixes units by a
    mean shows in the second: the zeros count there.
    """
    keeps = [_some(group.units) for group in groups]
    smaller = copy_of(drawn.model)
    try:
        remove(smaller, groups, keeps)
        left = drawn.answers(smaller)
        for roles in (_READ, _DEAD):
            with silenced(drawn.model, groups, keeps, roles):
                there = drawn.answers()
            if distance(there, left)[1] > _TOLERANCE:
                return "its channels act on others by a way that the graph does not show"
    except Exception as error:  # whatever the model's own code raises is the answer to the question
        return f"without some of them the model fails: {type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def _some(units: int) -> Tensor:
    """Return which units to keep: of the first half every other one, of the second all but a third.

    Fewer of the first half than of the second, so that a model which splits its channels in the middle shows it.
    """
    half, keep = units // 2, torch.ones(units, dtype=torch.bool)
    keep[:half:2] = False
    keep[half + 2 :: 3] = False
    return keep


@contextmanager
def silenced(
    model: nn.Module, groups: Sequence[Group], keeps: Sequence[Tensor], roles: tuple[Role, ...]
) -> Generator[None, None, None]:
    """Zero, for a while, what does something in these roles for a unit that is not kept."""
    tensors = tensors_of(model)
    parts = [Group(group.name, group.units, tuple(group.of(*roles))) for group in groups]
    alive = alive_along(parts, keeps, {name: tensor.shape for name, tensor in tensors.items()})
    before = {name: tensors[name].detach().clone() for name in alive}
    try:
        with torch.no_grad():
            for name, dims in alive.items():
                for dim, stays in dims.items():
                    dead = (~stays).nonzero().flatten().to(tensors[name].device)
                    tensors[name].index_fill_(dim, dead, 0.0)
        yield
    finally:
        with torch.no_grad():
            for name, values in before.items():
                tensors[name].copy_(values)
