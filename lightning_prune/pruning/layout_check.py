"""Which ideas must know what the dimensions of a weight are, and the refusal of weights of which that is not known."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from lightning_prune.coupling.layout import Layout
from lightning_prune.coupling.layout_use import layouts_used
from lightning_prune.pattern import Pattern, SitedPattern
from lightning_prune.targets import Found, Target

_NAMED = 8
"""How many weights an error names."""


def in_need(
    targets: Sequence[Target], pattern: Pattern | SitedPattern, criterion: Any, scope: Any, regularizer: Any
) -> dict[str, list[Target]]:
    """Return for each idea that tells outputs from inputs the targets that do not say which dimension is which.

    Patterns do unless they are of single weights, criteria and regularizers where they say `needs_layout = True` (or,
    a criterion, `of_outputs = True`). A scope with `needs_layout = True` is content with two dimensions of any order.
    """
    unknown = [target for target in targets if target.layout is None and target.parameter.dim() > 1]
    return {
        f"pattern={pattern}": [target for target in unknown if not _at(pattern, target).single],
        f"criterion={criterion}": unknown if _needs(criterion) else [],
        f"scope={scope}": [target for target in unknown if target.parameter.dim() > 2] if _needs(scope) else [],
        f"regularizer={regularizer}": unknown if _needs(regularizer) else [],
    }


def check_layouts(asking: Mapping[str, Sequence[Target]], unread: Mapping[str, str]) -> None:
    """Raise ValueError if ideas are in need of layouts.

    Args:
        asking: what `in_need` has found.
        unread: name of a weight -> why its use does not tell the layout.
    """
    for idea, refused in asking.items():
        if refused:
            raise ValueError(_refusal(idea, refused, unread))


def with_layouts_used(
    found: Found, model: nn.Module, needy: Callable[[Sequence[Target]], Mapping[str, Sequence[Target]]]
) -> tuple[Found, Mapping[str, str]]:
    """Return the targets with the layouts that a forward shows, of those that need one, and why it shows none.

    Args:
        found: the targets.
        model: the model; it runs, in a copy, only where a layout is needed and not known.
        needy: which targets are in need, by idea.
    """
    asked = {t.name: t.parameter for targets in needy(found.targets).values() for t in targets}
    seen = layouts_used(model, asked) if asked else {}
    layouts = {name: layout for name, layout in seen.items() if isinstance(layout, Layout)}
    targets = tuple(replace(t, layout=layouts[t.name]) if t.name in layouts else t for t in found.targets)
    return replace(found, targets=targets), {name: why for name, why in seen.items() if isinstance(why, str)}


def _needs(idea: Any) -> bool:
    return getattr(idea, "needs_layout", False) or getattr(idea, "of_outputs", False)


def _at(pattern: Pattern | SitedPattern, target: Target) -> Pattern:
    return pattern.at(target.name) if isinstance(pattern, SitedPattern) else pattern


def _refusal(idea: str, refused: Sequence[Target], unread: Mapping[str, str]) -> str:
    listed = ", ".join(
        f"'{target.name}' of shape {tuple(target.parameter.shape)}"
        + (f", {unread[target.name]}" if target.name in unread else "")
        for target in refused[:_NAMED]
    )
    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    key, dims = f"^{re.escape(refused[0].name)}$", refused[0].parameter.dim()
    text = " ".join(("out", "in", "kh", "kw", "kd", "kt")[:dims]) if dims != 3 else "expert out in"
    return (
        f"{idea} must know which dimension is the outputs' and which the inputs', and no layer says so of {listed}"
        f"{more}: name the dimensions in their order, such as Targets(layout={{{key!r}: {text!r}}}), or leave them "
        "out by Targets(exclude=...)"
        + ("" if unread else "; a model with an example_input_array is looked at for how it uses them")
    )
