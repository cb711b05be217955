"""Whether what a file has brought can be looked at: tensors that have values, and no more of them than the file can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

_DEEPEST, _MOST = 100, 1_000_000
"""Containers in each other, and containers in all: more are a cycle, or a few that name each other again and again."""
_TIMES, _ALWAYS = 100, 1 << 30
"""A tensor may be so many times as large as its file, or so many bytes: views are saved as what they show."""


def check_tensors(file: Path, content: Any) -> None:
    """Raise ValueError, with the file and the key, if what it holds cannot be looked at.

    A file may say that a tensor is far larger than what is stored of it, has no values at all (`meta`), or that a dict
    lies in itself.
    """
    size, containers = file.stat().st_size, 0
    nodes: list[tuple[str, int, Any]] = [("", 0, content)]
    while nodes:
        key, depth, node = nodes.pop()
        if isinstance(node, Tensor):
            reason = _why_not(node, size)
            if reason is not None:
                raise ValueError(f"{file}: {key.rstrip('.') or 'its tensor'!r} {reason}")
        elif isinstance(node, (Mapping, list, tuple)):
            containers += 1
            if depth > _DEEPEST or containers > _MOST:
                raise ValueError(f"{file}: what lies at {key[:60]!r} is nested too deep, or in itself")
            nodes += [(f"{key}{name}.", depth + 1, value) for name, value in _items(node) if _large(value)]


def claims_too_much(claimed: int, size: int) -> bool:
    """Return whether so many bytes of tensors cannot have come of a file of this size."""
    return claimed > max(_ALWAYS, _TIMES * size)


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, Mapping) else enumerate(node)


def _large(value: Any) -> bool:
    return isinstance(value, (Tensor, Mapping, list, tuple))


def _why_not(tensor: Tensor, size: int) -> str | None:
    if tensor.is_meta:
        return "holds no values: it was saved from the device 'meta'"
    if tensor.is_nested:
        return "is a nested tensor: what was pruned of it cannot be told"
    claimed = tensor.numel() * tensor.element_size()
    if claims_too_much(claimed, size):
        return f"claims {tensor.numel():,} values, {claimed:,} bytes, in a file of {size:,}: it is damaged, or made up"
    return None
