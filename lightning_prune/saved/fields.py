"""Fields of what a file has brought: errors name the place, what is there, what must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

MOST = 2**53
"""No count of anything is larger; JSON holds integers exactly up to here."""
_LONGEST = 60


def mapping(where: str, value: Any) -> dict[str, Any]:
    """Return a mapping whose keys are strings. Raises ValueError if it is none."""
    if not isinstance(value, Mapping):
        _refuse(where, value, "a mapping")
    for key in value:
        if not isinstance(key, str):
            _refuse(f"{where}: key {_short(key)}", key, "a string")
    return dict(value)


def at(where: str, values: Mapping[str, Any], key: str) -> Any:
    """Return what is under a key. Raises ValueError if there is nothing."""
    if key not in values:
        raise ValueError(f"{where} has no {key!r}: it is damaged, or was not left by this library")
    return values[key]


def sequence(where: str, value: Any) -> list[Any]:
    """Return a list. Raises ValueError if it is none."""
    return list(value) if isinstance(value, (list, tuple)) else _refuse(where, value, "a list")


def integer(where: str, value: Any, least: int = 0, most: int = MOST) -> int:
    """Return an int within bounds. Raises ValueError if it is none; bools are none."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(where, value, f"an int of at least {least}" + (f" and at most {most}" if most != MOST else ""))
    return value


def number(where: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a number within bounds, infinite ones too where those are. Raises ValueError if it is none or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        bounds = "" if (least, most) == (-math.inf, math.inf) else f" in [{least:g}, {most:g}]"
        _refuse(where, value, f"a number{bounds}")
    return float(value)


def boolean(where: str, value: Any) -> bool:
    """Return a bool. Raises ValueError if it is none."""
    return value if isinstance(value, bool) else _refuse(where, value, "true or false")


def text(where: str, value: Any) -> str:
    """Return a string. Raises ValueError if it is none."""
    return value if isinstance(value, str) else _refuse(where, value, "a string")


def tensor(where: str, value: Any, shape: Sequence[int] | None = None, bools: bool = False) -> Tensor:
    """Return a dense tensor of a shape, of bools or of floats. Raises ValueError if it is none."""
    must = ("a bool tensor" if bools else "a float tensor") + (f" of shape {tuple(shape)}" if shape is not None else "")
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type == "meta":
        _refuse(where, value, must)
    if (value.dtype != torch.bool) if bools else not value.is_floating_point():
        _refuse(where, value, must)
    if shape is not None and tuple(value.shape) != tuple(shape):
        _refuse(where, value, must)
    return value


def _refuse(where: str, value: Any, must: str) -> NoReturn:
    raise ValueError(f"{where} is {_short(value)}; it must be {must}")


def _short(value: Any) -> str:
    """Return a value in few printable characters."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MOST:
        return "an int beyond all counts"  # its digits may be too many to print
    if value is None or isinstance(value, (bool, int, float, str)):
        shown = repr(value)
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
    return f"a {type(value).__name__}"
