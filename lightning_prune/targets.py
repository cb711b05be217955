"""Which weights of a model are pruned, by rule, and why the others are not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lightning_prune.coupling.layout import Layout, layout_of
from lightning_prune.coupling.roles import why_unfit, why_whole
from lightning_prune.coupling.zeros_used import Forwards
from lightning_prune.given import plain
from lightning_prune.steps import check_sparsity


@dataclass(frozen=True)
class Target:
    """One weight to prune.

    Attributes:
        name: dotted name, the first of `names`.
        names: every name under which the parameter is found; more than one where it is tied.
        parameter: the parameter itself.
        owners: (module, attribute) for every name.
        group: the name under which a scope sees it; the two weights of a recurrent layer share one.
        layout: which dimension is what, declared, known of the layer or seen in a forward; None if it is not known.
        rule: the pattern in `Targets.sparsity` that sets its final sparsity, or None.
    """

    name: str
    names: tuple[str, ...]
    parameter: nn.Parameter
    owners: tuple[tuple[nn.Module, str], ...]
    group: str
    layout: Layout | None
    rule: str | None


@dataclass(frozen=True)
class Found:
    """What a rule selects of a model: the targets, and for every other parameter the reason why not."""

    targets: tuple[Target, ...]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Targets:
    """Select weights by regular expressions, searched in dotted names such as `encoder.0.weight`.

    Without `include`: the weights of layers, and every bare parameter with two or more dimensions larger than 1; no
    norms, biases, embeddings, tokens, tables of positions, scales, adapters or weights that are made of others (see
    `lightning_prune.coupling.roles`), and no frozen ones. With `include`: what it names, whatever it is. A tied weight
    counts once; by default it is left whole if one of its uses is.

    Args:
        include: patterns of weights to prune; empty for the default rule.
        exclude: patterns of weights to leave whole.
        sparsity: pattern -> final sparsity, for weights that are to end elsewhere than the schedule's; they are ranked
            among themselves, and the first pattern that matches holds. Of coupled units the first weight that computes
            them counts, and no weight may be sliced by units under two patterns.
        layout: pattern -> the names of the dimensions of the weights it matches, separated by blanks: `out`, `in`,
            `expert` where weights are stacked, any others for a kernel ("expert in out", "out in kh kw"). The first
            pattern that matches holds, over what is known of layers (`coupling.layout.layout_of`) or of a weight's use.
        follow: dotted name of a module -> that of another one, as they begin the names of their weights, no patterns:
            {"teacher": "student"}. What is under the first gets the masks of the same weight under the second, and is
            not counted. Names and shapes behind the two must be the same; `exclude` leaves single ones whole.

    Raises:
        ValueError: a pattern is no regular expression, a sparsity is no share, or a layout has no `out` and `in`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sparsity: Mapping[str, float] = field(default_factory=dict[str, float])
    layout: Mapping[str, str] = field(default_factory=dict[str, str])
    follow: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        for key in ("include", "exclude"):
            patterns = getattr(self, key)
            if isinstance(patterns, str):
                raise ValueError(f"{key}={patterns!r} must be a sequence of patterns: [{patterns!r}]")
            object.__setattr__(self, key, tuple(patterns))
        if not isinstance(self.sparsity, Mapping):
            raise ValueError(f"sparsity={self.sparsity!r} must map patterns to shares: {{'head': 0.5}}")
        if not isinstance(self.layout, Mapping):
            raise ValueError(f"layout={self.layout!r} must map patterns to layouts: {{'experts': 'expert out in'}}")
        for key in ("include", "exclude", "sparsity", "layout"):
            for pattern in getattr(self, key):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{key} has {pattern!r}, which is no regular expression: {error}") from None
        object.__setattr__(self, "sparsity", {pattern: plain(value) for pattern, value in self.sparsity.items()})
        object.__setattr__(self, "layout", dict(self.layout))  # of a Hydra app these are nodes of its config
        object.__setattr__(self, "follow", dict(self.follow))
        for pattern, value in self.sparsity.items():
            check_sparsity(f"sparsity[{pattern!r}]", value)
        for pattern, text in self.layout.items():
            try:
                Layout.parse(text)
            except ValueError as error:
                raise ValueError(f"layout[{pattern!r}]: {error}") from None

    def find(self, model: nn.Module, frozen: bool = False) -> Found:
        """Return the targets of a model, in the order of its parameters.

        Args:
            model: the model.
            frozen: treat frozen parameters as if they were not.

        Raises:
            ValueError: nothing is selected, a pattern matches nothing (the message lists near matches), a layout has
                not as many names as a weight has dimensions, or `include` names a parameter that cannot be masked.
        """
        uses, forwards = _uses(model), Forwards(model)
        names = [name for found in uses for name, _, _ in found]
        for key in ("include", "exclude"):
            for pattern in getattr(self, key):
                _check_pattern(key, pattern, names)
        for follower, leader in self.follow.items():
            for module in (follower, leader):
                prefix = f"{module}."
                _check_found(
                    f"follow has {module!r}, which",
                    str(module),
                    names,
                    [n for n in names if f"{n}.".startswith(prefix)],
                )
        targets: list[Target] = []
        skipped: dict[str, str] = {}
        for found in uses:
            reason = self._reason(found, frozen, forwards)
            if reason:
                skipped[found[0][0]] = reason
            else:
                targets.append(self._target(found))
        if not targets:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:8]) or "it has no parameters"
            raise ValueError(f"Targets select no weight of {type(model).__name__} ({reasons})")
        for key in ("sparsity", "layout"):
            for pattern in getattr(self, key):
                _check_pattern(key, pattern, [name for t in targets for name in t.names])
        return Found(tuple(targets), skipped)

    def _reason(self, uses: list[Use], frozen: bool, forwards: Forwards) -> str | None:
        """Return why a parameter is left whole, or None if it is pruned."""
        parameter = uses[0][1]._parameters[uses[0][2]]  # pyright: ignore[reportPrivateUsage]
        assert parameter is not None
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(f"'{uses[0][0]}' has no shape yet: run one batch through the lazy module before pruning")
        kind = _sharding(parameter)
        if kind:
            raise ValueError(f"'{uses[0][0]}' is sharded over ranks ({kind}), which this version cannot prune: use DDP")
        if not parameter.numel():
            return "empty"
        for name, _, _ in uses:
            for pattern in self.exclude:
                if re.search(pattern, name):
                    return f"excluded by {pattern!r}"
        for name, _, _ in uses:
            for follower, leader in self.follow.items():
                if f"{name}.".startswith(f"{follower}."):
                    return f"follows {leader}{name[len(follower) :]}"
        unfit = why_unfit(parameter)
        if self.include:
            named = next((p for p in self.include if any(re.search(p, name) for name, _, _ in uses)), None)
            if named is not None and unfit:
                raise ValueError(
                    f"include pattern {named!r} names '{uses[0][0]}', which cannot be masked ({unfit}): exclude it"
                )
            return None if named is not None else "not included"
        if unfit:
            return unfit
        if not (frozen or parameter.requires_grad):
            return "frozen"
        for name, module, attribute in uses:
            reason = why_whole(name, module, attribute, parameter, forwards)
            if reason:
                return reason if len(uses) == 1 else f"{reason} (tied: {', '.join(name for name, _, _ in uses)})"
        return None

    def _target(self, uses: list[Use]) -> Target:
        name, module, attribute = uses[0]
        parameter = module._parameters[attribute]  # pyright: ignore[reportPrivateUsage]
        assert parameter is not None
        names = tuple(name for name, _, _ in uses)
        rule = next((p for p in self.sparsity if any(re.search(p, n) for n in names)), None)
        group = name
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and re.match("weight_[ih]h", attribute):
            group = name[: len(name) - len(attribute)] + re.sub("_[ih]h", "", attribute)
        return Target(
            name=name,
            names=names,
            parameter=parameter,
            owners=tuple((module, attribute) for _, module, attribute in uses),
            group=group,
            layout=self._layout(uses, parameter),
            rule=rule,
        )

    def _layout(self, uses: list[Use], parameter: nn.Parameter) -> Layout | None:
        """Return the layout declared for a parameter, or the one that its layers are known to agree on."""
        for pattern, text in self.layout.items():
            if any(re.search(pattern, name) for name, _, _ in uses):
                layout = Layout.parse(text)
                if len(layout.axes) != parameter.dim():
                    raise ValueError(
                        f"layout[{pattern!r}]: '{layout}' names {len(layout.axes)} dimensions, and '{uses[0][0]}' has "
                        f"{parameter.dim()}, of shape {tuple(parameter.shape)}"
                    )
                return layout
        known = [layout_of(module, attribute, parameter.dim()) for _, module, attribute in uses]
        agreed = {layout for layout in known if layout is not None}
        return agreed.pop() if len(agreed) == 1 else None


def targets_named(model: nn.Module, names: Iterable[str]) -> tuple[Target, ...]:
    """Return the parameters of these names as targets, whatever they are."""
    uses = {name: found for found in _uses(model) for name, _, _ in found}
    return tuple(Targets()._target(uses[name]) for name in names)  # pyright: ignore[reportPrivateUsage]


def plain_name(name: str) -> str:
    """Return the user's name of a parameter: the one without the wrapper that torch.compile puts around modules."""
    return name.replace("_orig_mod.", "")


Use = tuple[str, nn.Module, str]
"""A dotted name, the module that holds the parameter, and the attribute."""


def _uses(model: nn.Module) -> list[list[Use]]:
    """Return for every parameter all its uses, in the order of `model.parameters()`."""
    uses: dict[int, list[Use]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():  # pyright: ignore[reportPrivateUsage]
            if parameter is not None:
                name = plain_name(f"{path}.{attribute}".removeprefix("."))
                found = uses.setdefault(id(parameter), [])
                if name not in [other for other, _, _ in found]:
                    found.append((name, module, attribute))
    return list(uses.values())


def _sharding(parameter: nn.Parameter) -> str | None:
    """Return by what a parameter is sharded over ranks, or has given up its own shape; None if it is whole."""
    if hasattr(parameter, "ds_id") or hasattr(parameter, "ds_status"):
        return "DeepSpeed"
    if any(kind.__name__ == "FlatParameter" for kind in type(parameter).__mro__) or getattr(
        parameter, "_is_flat_param", False
    ):
        return "FlatParameter of FSDP1"
    return None


def _check_pattern(key: str, pattern: str, names: list[str]) -> None:
    _check_found(f"{key} pattern {pattern!r}", pattern, names, [name for name in names if re.search(pattern, name)])


def _check_found(what: str, pattern: str, names: list[str], found: list[str]) -> None:
    if found:
        return
    plain = re.sub(r"[\\^$.*+?()\[\]{}|]+", ".", pattern).strip(".")
    near = difflib.get_close_matches(plain, names, n=3, cutoff=0.3) or names[:3]
    raise ValueError(f"{what} matches no weight; near matches: {', '.join(near)}")


def groups(found: Found) -> Iterator[tuple[str | None, dict[str, list[Target]]]]:
    """Yield for every sparsity rule (None: the schedule's own) its targets by group, in order."""
    by_rule: dict[str | None, dict[str, list[Target]]] = {}
    for target in found.targets:
        by_rule.setdefault(target.rule, {}).setdefault(target.group, []).append(target)
    yield from by_rule.items()
