"""Numbers that the host wants of tensors: all of them in one synchronization with the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from lightning_prune.ranking.float_keys import bits
from lightning_prune.ranking.threads import sums

NUMPY = find_spec("numpy") is not None
"""Torch works without numpy, and so does this; only slower on the CPU."""


def count(flags: Tensor) -> int:
    """Return how many entries of a bool tensor are true."""
    if NUMPY and flags.device.type == "cpu":
        import numpy as np

        return int(np.count_nonzero(flags.numpy()))  # counts bytes several times faster than torch
    return int(flags.count_nonzero())


def counts(flags: Iterable[Tensor]) -> list[int]:
    """Return how many entries of each bool tensor are true; those on a device are read together.

    Args:
        flags: bool tensors. Each is let go before the next is asked for, so they may be made one at a time.
    """
    found: list[int | Tensor] = []
    for some in flags:
        found.append(count(some) if some.device.type == "cpu" else some.count_nonzero())
    numbers = iter(read([number for number in found if isinstance(number, Tensor)]))
    return [next(numbers) if isinstance(number, Tensor) else number for number in found]


def count_nonzero(tensors: Sequence[Tensor]) -> list[int]:
    """Return how many entries of each float tensor are not zero; those on a device are read together."""
    here = [t for t in tensors if NUMPY and t.device.type == "cpu" and t.is_contiguous() and t.is_floating_point()]
    on_cpu = {id(tensor): number for tensor, number in zip(here, _nonzero_on_cpu(here), strict=True)}
    others = iter(counts(tensor.detach() != 0 for tensor in tensors if id(tensor) not in on_cpu))
    return [on_cpu[id(tensor)] if id(tensor) in on_cpu else next(others) for tensor in tensors]


def _nonzero_on_cpu(tensors: Sequence[Tensor]) -> list[int]:
    if not tensors:
        return []
    import numpy as np

    def work(raw: Any) -> int:
        return int(np.count_nonzero(raw << 1 != 0))  # all bits but the sign: -0.0 is zero

    return sums([(bits(tensor).numpy().reshape(-1),) for tensor in tensors], work)


def read(numbers: Sequence[Tensor]) -> list[int]:
    """Return integer tensors of one element as ints, in one synchronization for each device."""
    if len(numbers) < 2:
        return [int(number) for number in numbers]
    where: dict[torch.device, list[int]] = {}
    for index, number in enumerate(numbers):
        where.setdefault(number.device, []).append(index)
    found: dict[int, int] = {}
    for indices in where.values():
        by_dtype: dict[torch.dtype, list[int]] = {}
        for index in indices:
            by_dtype.setdefault(numbers[index].dtype, []).append(index)
        stacked = [torch.stack([numbers[i].reshape(()) for i in some]).long() for some in by_dtype.values()]
        values = (stacked[0] if len(stacked) == 1 else torch.cat(stacked)).cpu().tolist()
        found |= dict(zip([i for some in by_dtype.values() for i in some], values, strict=True))
    return [found[index] for index in range(len(numbers))]


def is_finite(values: Tensor) -> Tensor:
    """Return whether all values of a float tensor are finite, as a bool tensor of one element where they are."""
    return ends(values).isfinite().all()


def ends(values: Tensor) -> Tensor:
    """Return the least and the largest of a float tensor: both finite where all are. Nothing waits for the device."""
    if not values.numel():
        return values.new_zeros(2)
    return torch.stack(torch.aminmax(values))  # both are NaN where one value is


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return small tensors on the CPU, in one synchronization for those of one device and dtype."""
    found = list(tensors)
    where: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.device.type != "cpu":
            where.setdefault((tensor.device, tensor.dtype), []).append(index)
    for indices in where.values():
        flat = torch.cat([tensors[index].flatten() for index in indices]).cpu()
        for index, part in zip(indices, flat.split([tensors[index].numel() for index in indices]), strict=True):
            found[index] = part.view(tensors[index].shape)
    return found
