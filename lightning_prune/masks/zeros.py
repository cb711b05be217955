"""Setting pruned entries to zero through the bits of their floats: an infinity or a NaN becomes zero as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.ranking.float_keys import bits
from lightning_prune.targets import plain_name

_CHUNK = 1 << 18
"""Entries zeroed at a time: multiplying by a bool makes an integer copy of it, which should stay in the cache."""


def zero_(tensor: Tensor, mask: Tensor) -> None:
    """Set the entries of a dense float tensor to zero where the bool `mask` is false; all others keep their bits."""
    raw = bits(tensor)
    if tensor.device.type != "cpu" or tensor.numel() <= _CHUNK or tensor.dim() == 0:
        raw.mul_(mask)
        return
    rows = max(1, _CHUNK * tensor.shape[0] // tensor.numel())
    for raw_part, mask_part in zip(raw.split(rows), mask.split(rows), strict=True):
        raw_part.mul_(mask_part)


def zero_each_(tensors: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    """Do what `zero_` does with many tensors: with the small ones in one call."""
    small: list[Tensor] = []
    theirs: list[Tensor] = []
    for tensor, mask in zip(tensors, masks, strict=True):
        if tensor.numel() > _CHUNK and tensor.device.type == "cpu":
            zero_(tensor, mask)
        else:
            small.append(bits(tensor))
            theirs.append(mask)
    if small:
        torch._foreach_mul_(small, theirs)  # pyright: ignore - as torch.nn.utils.clip_grad_norm_ does


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
