"""Names with a reason each, in a few lines however many they are."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"'?\b\w+(?:\.\w+)+\b'?")
"""A dotted name in a reason."""


def by_reason(what: str, reason_of: Mapping[str, str], names: int = 4, reasons: int = 8) -> list[str]:
    """Return a line a reason with the first names, those that differ in the names of weights alone taken together.

    Args:
        what: begins each line, such as "left whole".
        reason_of: name -> why.
        names: how many are shown of each reason.
        reasons: how many are shown; what there is for others is counted.
    """
    kinds: dict[str, dict[str, str]] = {}
    for name, reason in reason_of.items():
        kinds.setdefault(_NAME.sub("...", reason), {})[name] = reason
    lines: list[str] = []
    for kind, found in list(kinds.items())[:reasons]:
        shown, alike = list(found)[:names], len(set(found.values())) == 1
        more = f" and {len(found) - len(shown):,} more" if len(found) > len(shown) else ""
        lines.append(f"{what}, {next(iter(found.values())) if alike else kind}: {', '.join(shown)}{more}")
    rest = [len(found) for found in list(kinds.values())[reasons:]]
    return lines + ([f"{what} for {len(rest)} other reasons: {sum(rest):,} (report.skipped)"] if rest else [])
