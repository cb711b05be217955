"""What CUDA refuses: tensors of two devices in one operation, and a generator of the other device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_COPIES = {"aten::_to_copy", "aten::copy_", "aten::result_type"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_TAKES_A_NUMBER = {"aten::masked_fill", "aten::masked_fill_", "aten::fill", "aten::fill_"}
"""Not tagged pointwise, and yet a tensor without dimensions may lie on the CPU, as in pointwise ones."""


def tensors_of(values: Any) -> list[Tensor]:
    """Return the tensors in nested arguments."""
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def check_devices(func: Any, args: Sequence[Any], kwargs: dict[str, Any], device: torch.device) -> None:
    """Raise RuntimeError where an operation gets tensors of the device and of the CPU that CUDA would not mix."""
    name: str = func._schema.name
    found = tensors_of((args, kwargs))
    if name in _COPIES or len({t.device for t in found}) < 2:
        return
    if name in _INDEXED:
        values = tensors_of(args[2:3])
        strangers = [t for t in found if t.device != device] if args[0].device != device else _large(values, device)
    elif torch.Tag.pointwise in func.tags or name in _TAKES_A_NUMBER or _foreach(name):
        strangers = _large(found, device) + [t for t in _written(func, args) if t.device != device]
    else:
        strangers = [t for t in found if t.device != device]
    if strangers:
        shapes = ", ".join(str(tuple(t.shape)) for t in strangers)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {device} and cpu! "
            f"({func}; on the CPU are shapes {shapes})"
        )


def check_generator(func: Any, on_device: bool, of_device: bool, device: torch.device) -> None:
    """Raise RuntimeError where numbers are drawn on one device with a generator of the other."""
    if on_device != of_device:
        wanted, found = (device, "cpu") if on_device else ("cpu", device)
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}' ({func})")


def _large(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    return [t for t in tensors if t.device != device and t.dim()]


def _written(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Return the tensors that an operation writes to."""
    marked = [argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments]
    return tensors_of([value for value, written in zip(args, marked, strict=False) if written])


def _foreach(name: str) -> bool:
    return name.startswith("aten::_foreach_")
