"""What an operation costs on a GPU beside its arithmetic: kernel launches, waits of the host, copies, memory.

The numbers are those of torch's CUDA kernels as far as the host sees them. An operation of several kernels, as a sort,
counts as one unless it is listed here; what a kernel needs for itself while it runs is not seen.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lightning_prune
from tests.device.rules import tensors_of

_LIBRARY = str(Path(lightning_prune.__file__).parent)
_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)

_FREE = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
    *("detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "is_same_size", "result_type"),
    "_local_scalar_dense",
}
_WAITS = {
    **{"_local_scalar_dense": 1, "equal": 1, "nonzero": 1, "masked_select": 1, "bincount": 2},
    **{"_unique2": 1, "unique_dim": 1, "unique_consecutive": 1},
    "_linalg_check_errors": 1,  # within torch.linalg's inv, solve and cholesky, but not in those with _ex
}
_LAUNCHES = {"nonzero": 3, "masked_select": 3, "_unique2": 3, "unique_dim": 3, "unique_consecutive": 3, "bincount": 5}
_AT_ONCE = (110, 64, 48, 36, 30)
"""How many tensors one launch of a `foreach` kernel takes, by how many lists of tensors it works on."""
_BLOCKS, _CHUNK = 320, 65536
"""How many chunks, and of how many entries, one such launch takes."""


@dataclass(frozen=True)
class Cost:
    """What one operation costs. `copies` are those between host and device."""

    launches: int = 0
    synchronizations: int = 0
    copies: int = 0


@dataclass
class Counts:
    """What was counted.

    Attributes:
        before: bytes on the device when counting began.
        peak: the most bytes on the device at one time since then.
        where: how many synchronizations each line of the library caused; `path:line`, or that of who called torch.
        launched: how many launches each line caused.
        copied: how many copies between host and device.
        operations: how many launches each of torch's operations took.
    """

    before: int = 0
    peak: int = 0
    where: Counter[str] = field(default_factory=Counter)
    launched: Counter[str] = field(default_factory=Counter)
    copied: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)

    @property
    def synchronizations(self) -> int:
        """How many times the host waited for the device."""
        return self.where.total()

    @property
    def launches(self) -> int:
        """How many kernels were launched."""
        return self.launched.total()

    @property
    def copies(self) -> int:
        """How many copies went between host and device, in either direction."""
        return self.copied.total()

    def add(self, func: Any, cost: Cost) -> None:
        """Count one operation at the line that asked for it."""
        if cost == Cost():
            return
        line = _line()
        self.where += Counter({line: cost.synchronizations})
        self.launched += Counter({line: cost.launches})
        self.copied += Counter({line: cost.copies})
        self.operations += Counter({str(func): cost.launches})


def cost_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any], device: torch.device) -> Cost:
    """Return what an operation costs that reads or writes tensors of the device."""
    name = func._schema.name.removeprefix("aten::")
    if name in ("_to_copy", "copy_"):
        return _cost_of_copy(name, args, kwargs, device)
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return _cost_of_index(name, args, device)
    if name == "repeat_interleave":
        return Cost(2, int(kwargs.get("output_size") is None))
    if func.is_view or name in _FREE:
        waits = _WAITS.get(name, 0)
        return Cost(0, waits, waits)
    if name.startswith(("_foreach_", "_fused_", "_amp_foreach_")):
        return Cost(_launches_of_lists(args))
    waits = _WAITS.get(name, 0)
    return Cost(_LAUNCHES.get(name, 1), waits, waits)


def _cost_of_copy(name: str, args: Sequence[Any], kwargs: dict[str, Any], device: torch.device) -> Cost:
    if name == "copy_":
        to, source = args[0].device, args[1].device
        waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
    else:
        to, source = torch.device(kwargs.get("device") or args[0].device), args[0].device
        waits = not kwargs.get("non_blocking")
    if to.type == source.type == device.type:
        return Cost(1)
    return Cost(0, int(waits), 1)  # a copy that need not wait is one from or to pinned memory


def _cost_of_index(name: str, args: Sequence[Any], device: torch.device) -> Cost:
    indices = tensors_of(args[1])
    brought = sum(index.device != device for index in indices)
    if not any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        return Cost(1, brought, brought)
    if name != "index" and args[2].numel() == 1 and args[2].device != device:
        return Cost(1, brought, brought)  # torch fills under the mask and looks for no places
    return Cost(4, 1 + brought, brought)


def _launches_of_lists(args: Sequence[Any]) -> int:
    lists = [value for value in args if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor)]
    if not lists:
        return 1
    first: Sequence[Tensor] = lists[0]
    at_once = _AT_ONCE[min(len(lists), len(_AT_ONCE)) - 1]
    chunks = sum(math.ceil(t.numel() / _CHUNK) for t in first)
    return max(math.ceil(len(first) / at_once), math.ceil(chunks / _BLOCKS))


def _line() -> str:
    """Return the line of the library that an operation comes from, or else that of whoever called torch."""
    caller = "torch"
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_LIBRARY):
            return f"{Path(path).relative_to(_LIBRARY).as_posix()}:{frame.f_lineno}"
        own = path.startswith(_HERE) and not Path(path).name.startswith("test_")
        if caller == "torch" and not own and not path.startswith((_TORCH, "<")):
            caller = f"{Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return caller
