"""Setting pruned entries to zero through the bits of their floats: an infinity or a NaN becomes zero as well."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from lightning_prune.ranking.float_keys import bits
from lightning_prune.targets import plain_name

_NUMPY = find_spec("numpy") is not None
_CHUNK = 1 << 18
"""Entries zeroed at a time: multiplying by a bool makes an integer copy of it, which should stay in the cache."""
_BY_NUMPY_FROM = 1 << 13
"""From so many entries on numpy, which needs no such copy, is faster; below, calling it takes as long."""
_SHARED_FROM = 1 << 16
"""From so many entries on torch shares the work among threads; with more than two it is faster than numpy."""


def zero_(tensor: Tensor, mask: Tensor) -> None:
    """Set the entries of a dense float tensor to zero where the bool `mask` is false; all others keep their bits."""
    raw = bits(tensor)
    entries = raw.numel()
    if not raw.is_cpu or entries < _BY_NUMPY_FROM:
        raw.mul_(mask)
    elif _by_numpy(raw, mask):
        import numpy as np

        values = raw.numpy()
        np.multiply(values, mask.numpy(), out=values)
        if not raw.is_inference():  # torch does not see what numpy writes
            increment_version(raw)
    elif entries <= _CHUNK:
        raw.mul_(mask)
    else:
        rows = max(1, _CHUNK * raw.shape[0] // entries)
        for raw_part, mask_part in zip(raw.split(rows), mask.split(rows), strict=True):
            raw_part.mul_(mask_part)


def _by_numpy(raw: Tensor, mask: Tensor) -> bool:
    entries = raw.numel()
    return (
        _NUMPY
        and entries <= (_CHUNK if torch.get_num_threads() <= 2 else _SHARED_FROM)
        and type(raw) is Tensor
        and type(mask) is Tensor
        and mask.is_cpu
        and raw.is_contiguous()  # nor does numpy see entries that share memory
        and mask.is_contiguous()
        and not torch.compiler.is_compiling()
    )


def zero_copies(saved: Any, masks: Mapping[str, Tensor]) -> None:
    """Zero entries where masks are false, wherever nested dicts hold a float tensor under a mask's name and shape."""
    if not isinstance(saved, dict):
        return
    for key, value in saved.items():
        if isinstance(value, dict):
            zero_copies(value, masks)
        elif isinstance(value, Tensor) and isinstance(key, str) and value.is_floating_point():
            mask = masks.get(plain_name(key))
            if mask is not None and mask.shape == value.shape:
                zero_(value, mask.to(value.device))
