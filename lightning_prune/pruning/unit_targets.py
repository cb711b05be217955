"""Which of a model's groups of units the targets allow to prune, and which other tensors go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from lightning_prune.coupling.graph import OUTPUT
from lightning_prune.coupling.units import Coupling, Group
from lightning_prune.masks import check_own
from lightning_prune.pattern import CoupledPattern
from lightning_prune.targets import Found, Target, Targets, plain_name, targets_named


@dataclass(frozen=True)
class UnitTargets:
    """What a coupled pattern prunes.

    Attributes:
        groups: the groups of units.
        targets: every parameter that they slice.
        counted: the names of those among which zeros are counted: targets of the rule.
        norms: the names of those that are scales of norms.
        skipped: name of every other parameter -> why it is left whole.
        rules: pattern of `Targets.sparsity`, None for none -> the groups under it; no tensor is sliced by two rules.
    """

    groups: tuple[Group, ...]
    targets: tuple[Target, ...]
    counted: frozenset[str]
    norms: frozenset[str]
    skipped: Mapping[str, str]
    rules: Mapping[str | None, tuple[Group, ...]]


def unit_targets(
    model: nn.Module, found: Found, coupling: Coupling, waiting: Mapping[str, str] | None = None
) -> UnitTargets:
    """Keep the groups whose weights are all targets and train.

    A weight that is excluded keeps its outputs; columns that read removed units still go, and `skipped` says so.

    Args:
        model: the model.
        found: what the rules select of it.
        coupling: its groups of units.
        waiting: name of each parameter that does not train -> why; None for those that are frozen.

    Raises:
        ValueError: no group is left, or units under different sparsity rules share a weight; the message says why.
    """
    wanted = {name: target for target in found.targets for name in target.names}
    if waiting is None:
        waiting = {plain_name(name): "frozen" for name, p in model.named_parameters() if not p.requires_grad}
    refused = {plain_name(name): why for name, why in coupling.refused.items()}
    groups: list[Group] = []
    for group in map(_plainly_named, coupling.groups):
        reason = _against(group, wanted, found.skipped, waiting)
        if reason is None:
            groups.append(group)
        else:
            refused[group.name] = reason
    sliced = {part.name for group in groups for part in group.parts}
    names = [name for name in (plain_name(name) for name, _ in model.named_parameters()) if name in sliced]
    counted = frozenset(wanted[name].name for name in names if name in wanted)
    if not counted:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:8]) or "its graph shows none"
        raise ValueError(f"{type(model).__name__} has no units that can be removed ({reasons})")
    skipped = {name: why for name, why in found.skipped.items() if name not in sliced}
    for name in {part.name for group in groups for part in group.of("in")} - set(wanted):
        skipped[name] = f"{found.skipped.get(name, 'not a target')}; but columns that read removed units go"
    for target in found.targets:
        if target.name not in sliced:
            skipped[target.name] = refused.get(target.name, "no units that could be removed were found in it")
        elif refused.get(target.name, OUTPUT) != OUTPUT:
            skipped[target.name] = f"{refused[target.name]}; but columns that read removed units go"
    norms = frozenset(part.name for group in groups for part in group.of("norm"))
    rules = _by_rule(groups, wanted)
    for rule in {target.rule for target in found.targets} - {None, *rules}:
        raise ValueError(
            f"Targets(sparsity=...) cannot hold: {rule!r} matches no weight that computes removable units; what it "
            "matches only loses columns with the units that it reads, if any"
        )
    return UnitTargets(tuple(groups), targets_named(model, names), counted, norms, skipped, rules)


def units_of(model: nn.Module, pattern: CoupledPattern, targets: Targets) -> UnitTargets:
    """Return the groups of units that pattern and targets allow to prune.

    Raises:
        ValueError: there are none, or they share memory with others; the message says why.
    """
    units = unit_targets(model, targets.find(model), pattern.couple(model))
    check_own(model, units.targets)
    return units


def _by_rule(groups: Sequence[Group], wanted: Mapping[str, Target]) -> dict[str | None, tuple[Group, ...]]:
    rules: dict[str | None, tuple[Group, ...]] = {}
    under: dict[str, str | None] = {}
    for group in groups:
        rule = wanted[group.name].rule
        rules[rule] = (*rules.get(rule, ()), group)
        for part in group.parts:
            others = {under.setdefault(part.name, rule)} | {wanted[p.name].rule for p in group.of("out")}
            for other in others - {rule}:
                named = " and ".join("the schedule" if r is None else repr(r) for r in (rule, other))
                raise ValueError(
                    f"Targets(sparsity=...) cannot hold: units under {named} share the weights of '{part.name}'; leave "
                    "out one side, for instance the residual streams, or give the schedule one final sparsity"
                )
    return rules


def _plainly_named(group: Group) -> Group:
    parts = tuple(replace(part, name=plain_name(part.name)) for part in group.parts)
    return replace(group, name=plain_name(group.name), parts=parts)


def _against(
    group: Group, wanted: Mapping[str, Target], skipped: Mapping[str, str], waiting: Mapping[str, str]
) -> str | None:
    """Return why a group must not be pruned, None if it may."""
    for part in group.parts:
        if why := waiting.get(part.name):
            return why if part.name == group.name else f"tied to {part.name}, which is {why}"
    for part in group.of("out"):
        if part.name not in wanted:
            reason = skipped.get(part.name, "not a target")
            return reason if part.name == group.name else f"tied to {part.name}, which is left whole: {reason}"
    return None
