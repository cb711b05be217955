"""Numbers and flags as arguments were given: checked when an idea is made, and refused by the argument's name."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

_DIGITS = {2: 3, 4: 7}
"""How many decimal digits a float of so many bytes tells apart."""


def number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> None:
    """Raise ValueError unless a value is a finite number within bounds.

    Args:
        name: the argument's.
        value: what was given: an int, a float, or such a scalar of numpy or torch.
        least: a bound that it may be equal to.
        most: a bound that it may be equal to.
        above: a bound that it must not be equal to.
        below: a bound that it must not be equal to.
        hint: what the message ends in.
    """
    found = plain(value)
    if type(found) is not bool and isinstance(found, (int, float)) and math.isfinite(found):
        low = (least is None or found >= least) and (above is None or found > above)
        if low and (most is None or found <= most) and (below is None or found < below):
            return
    raise ValueError(f"{name}={value!r} must be {_bounds(least, most, above, below)}{hint}")


def whole(name: str, value: Any, least: int | None = None, hint: str = "") -> None:
    """Raise ValueError unless a value is an int, of at least so much."""
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        raise ValueError(f"{name}={value!r} must be an int{'' if least is None else f' of at least {least}'}{hint}")


def flag(name: str, value: Any) -> None:
    """Raise ValueError unless a value is True or False: any other, 'no' as well, would pass for True."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be True or False")


def plain(value: Any) -> Any:
    """Return a scalar of numpy or torch that is a real number as an int or float; anything else as it is.

    A float narrower than Python's is taken as the decimal it was made from: float32's .9 is .9.
    """
    if type(value) in (bool, int, float) or not hasattr(value, "item") or not hasattr(value, "dtype") or value.shape:
        return value
    item = value.item()
    if type(item) is float:
        return float(f"{item:.{_DIGITS.get(value.dtype.itemsize, 17)}g}")
    return item if type(item) is int else value


def make_plain(idea: Any) -> None:
    """Have a frozen dataclass hold plain ints and floats where it was given scalars of numpy or torch."""
    for field in fields(idea):
        object.__setattr__(idea, field.name, plain(getattr(idea, field.name)))


def _bounds(least: float | None, most: float | None, above: float | None, below: float | None) -> str:
    low, high = (least if above is None else above), (most if below is None else below)
    if low is None and high is None:
        return "a finite number"
    if high is None:
        return f"a number above {above:g}" if least is None else f"a number of at least {least:g}"
    if low is None:
        return f"a number below {below:g}" if most is None else f"a number of at most {most:g}"
    return f"a number in {'(' if least is None else '['}{low:g}, {high:g}{')' if most is None else ']'}"
