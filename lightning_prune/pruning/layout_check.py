"""Which ideas must know what the dimensions of a weight are, and the refusal of weights of which that is not known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning_prune.pattern import Pattern, SitedPattern
from lightning_prune.targets import Target

_NAMED = 8
"""How many weights an error names."""


def check_layouts(
    targets: Sequence[Target], pattern: Pattern | SitedPattern, criterion: Any, scope: Any, regularizer: Any
) -> None:
    """Raise ValueError if an idea tells outputs from inputs, and a target does not say which dimension is which.

    Patterns do unless they are of single weights, criteria and regularizers where they say `needs_layout = True` (or,
    a criterion, `of_outputs = True`). A scope with `needs_layout = True` is content with two dimensions of any order.
    """
    unknown = [target for target in targets if target.layout is None and target.parameter.dim() > 1]
    asking = {
        f"pattern={pattern}": [target for target in unknown if not _at(pattern, target).single],
        f"criterion={criterion}": unknown if _needs(criterion) else [],
        f"scope={scope}": [target for target in unknown if target.parameter.dim() > 2] if _needs(scope) else [],
        f"regularizer={regularizer}": unknown if _needs(regularizer) else [],
    }
    for idea, refused in asking.items():
        if refused:
            raise ValueError(_refusal(idea, refused))


def _needs(idea: Any) -> bool:
    return getattr(idea, "needs_layout", False) or getattr(idea, "of_outputs", False)


def _at(pattern: Pattern | SitedPattern, target: Target) -> Pattern:
    return pattern.at(target.name) if isinstance(pattern, SitedPattern) else pattern


def _refusal(idea: str, refused: Sequence[Target]) -> str:
    listed = ", ".join(f"'{target.name}' of shape {tuple(target.parameter.shape)}" for target in refused[:_NAMED])
    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    key, dims = f"^{re.escape(refused[0].name)}$", refused[0].parameter.dim()
    text = " ".join(("out", "in", "kh", "kw", "kd", "kt")[:dims]) if dims != 3 else "expert out in"
    return (
        f"{idea} must know which dimension is the outputs' and which the inputs', and no layer says so of {listed}"
        f"{more}: name the dimensions in their order, such as Targets(layout={{{key!r}: {text!r}}}), or leave them "
        "out by Targets(exclude=...)"
    )
