"""Numbers and names for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_prune.report import percent


def share(value: float) -> str:
    """Return a share as a percentage, with as few digits as say it."""
    return percent(value).replace(".00 %", " %")


def count(value: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Return a number in few characters, such as 3.58 M."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


def size(value: float) -> str:
    """Return bytes in the unit that suits them."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} bytes"


def milliseconds(value: float) -> str:
    """Return a time in milliseconds."""
    return f"{value:.3g} ms"


def times(before: float, after: float) -> str:
    """Return how many times less the second is."""
    if after <= 0:
        return "all gone" if before > 0 else "none"
    return "the same" if before == after else f"{before / after:.2f} ×"


def value_of(metric: str, value: float) -> str:
    """Return a metric, an accuracy as a percentage."""
    if not math.isfinite(value):
        return str(value)
    return f"{100 * value:.2f} %" if is_share(metric) else f"{value:.4g}"


def is_share(metric: str) -> bool:
    """Whether a metric is shown as a percentage."""
    return metric.endswith("accuracy")


def short_names(names: Sequence[str]) -> list[str]:
    """Return names without the parts that all have in common, and cut to what fits beside an axis."""
    parts = [name.split(".") for name in names]
    if len(parts) > 1:
        while all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
            parts = [part[:-1] for part in parts]
        while (
            all(len(part) > 1 and not part[1][:1].isdigit() for part in parts) and len({part[0] for part in parts}) == 1
        ):
            parts = [part[1:] for part in parts]
    elif parts and parts[0][-1] == "weight" and len(parts[0]) > 1:
        parts = [parts[0][:-1]]
    return [cut(".".join(part)) for part in parts]


def cut(name: str, longest: int = 20) -> str:
    """Return a name of no more characters than fit, its end where it is longer."""
    return name if len(name) <= longest else f"…{name[-(longest - 1) :]}"


def thinned(number: int, most: int) -> list[int]:
    """Return which of so many to show, where they are more than fit: evenly, the last among them."""
    if number <= most:
        return list(range(number))
    return sorted({round(i * (number - 1) / (most - 1)) for i in range(most)})


def hundredths(value: float) -> str:
    """Return a percentage."""
    return f"{value:.2f} %"


def number(value: float) -> str:
    """Return a number with four digits."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)
