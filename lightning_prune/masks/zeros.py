"""Setting pruned entries to zero through the bits of their floats: an infinity or a NaN becomes zero as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.ranking import NUMPY, by_rows, count
from lightning_prune.ranking.float_keys import bits
from lightning_prune.ranking.threads import CHUNK, number, sums
from lightning_prune.shards import local
from lightning_prune.targets import plain_name

_FEW = 1 / 24
"""Share of words of 8 flags up to which setting entries one by one is faster than reading and writing all."""


def zero_(tensor: Tensor, mask: Tensor) -> None:
    """Set the entries of a dense float tensor to zero where the bool `mask` is false; all others keep their bits."""
    raw = bits(tensor)
    if not _is_large(tensor):
        raw.mul_(mask)
        return
    if tensor.is_contiguous() and mask.is_contiguous():
        raw, mask = raw.view(-1), mask.view(-1)
    for some, flags in by_rows(raw, mask, size=CHUNK * number()):  # integers made of flags stay in the cores' caches
        some.mul_(flags)


def _is_large(tensor: Tensor) -> bool:
    """Return whether a tensor is handled in chunks: flags of a whole one would be integers in memory."""
    return tensor.numel() > CHUNK and tensor.device.type == "cpu"


def zero_counting(
    tensors: Sequence[Tensor], masks: Sequence[Tensor], zeros: Sequence[Tensor | None] | None = None
) -> list[int]:
    """Do what `zero_` does with many tensors on the CPU, and return how many entries stay of each.

    Args:
        tensors: dense floats.
        masks: bool in the tensors' shapes, true for entries that stay.
        zeros: for each tensor a mask that is false only for entries that are zero already, None where none is known.
            Where few others go, these are looked up and set, and the tensor is not read.
    """
    known = [None] * len(tensors) if zeros is None else zeros
    chunked = [index for index, pair in enumerate(zip(tensors, masks, strict=True)) if _by_chunks(*pair)]
    kept = _chunk_by_chunk([tensors[i] for i in chunked], [masks[i] for i in chunked], [known[i] for i in chunked])
    found = dict(zip(chunked, kept, strict=True))
    for index in set(range(len(tensors))) - set(chunked):
        zero_(tensors[index], masks[index])
        found[index] = count(masks[index])
    return [found[index] for index in range(len(tensors))]


def _by_chunks(tensor: Tensor, mask: Tensor) -> bool:
    return NUMPY and tensor.device.type == "cpu" and tensor.is_contiguous() and mask.is_contiguous()


def _chunk_by_chunk(
    tensors: Sequence[Tensor], masks: Sequence[Tensor], zeros: Sequence[Tensor | None] | None = None
) -> list[int]:
    """Zero contiguous tensors on the CPU in threads, and return how many entries stay of each.

    numpy multiplies integers by flags without a copy of these, and lets other threads run meanwhile.
    """
    if not tensors:
        return []
    import numpy as np

    from lightning_prune.ranking.flags import where_only

    def work(raw: Any, flags: Any, before: Any = None) -> int:
        stay = int(np.count_nonzero(flags))
        if stay < flags.size:
            go = None if before is None else where_only(before, flags, _FEW)
            if go is None:
                np.multiply(raw, flags, out=raw)
            elif go.size:
                raw[go] = 0
        return stay

    arrays: list[tuple[Any, ...]] = []
    for tensor, mask, before in zip(tensors, masks, zeros or [None] * len(tensors), strict=True):
        known = () if before is None or not before.is_contiguous() else (before.numpy().reshape(-1),)
        arrays.append((bits(tensor).numpy().reshape(-1), mask.numpy().reshape(-1), *known))
    kept = sums(arrays, work)
    for tensor, mask, stay in zip(tensors, masks, kept, strict=True):
        if stay < mask.numel():  # numpy's writes are none that torch counts
            torch.autograd.graph.increment_version(tensor)
    return kept


def zero_each_(tensors: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    """Do what `zero_` does with many tensors: large ones on the CPU one by one, the others in one call."""
    small: list[Tensor] = []
    theirs: list[Tensor] = []
    for tensor, mask in zip(tensors, masks, strict=True):
        if _is_large(tensor):
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
            mask, values = masks.get(plain_name(key)), local(value)
            if mask is not None and mask.shape == values.shape:
                zero_(values, mask.to(values.device))
