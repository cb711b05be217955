"""What must hold of weights before masks are put on them: each in memory of its own, and a weight itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_prune.shards import local
from lightning_prune.targets import Target, plain_name


def check_own(model: nn.Module, targets: Sequence[Target]) -> None:
    """Raise ValueError if a weight to prune shares memory with another parameter, or is masked by torch's pruning.

    Or if they lie on several devices, where they could not be ranked together.

    Args:
        model: the model.
        targets: what is to be pruned of it.
    """
    _check_one_device(targets)
    for target in targets:
        _check_not_masked(target)
    masked = {id(target.parameter): target.name for target in targets}
    for one, other in _shared(model):
        names = masked.get(id(one[1])), masked.get(id(other[1]))
        if any(names):
            raise ValueError(
                f"'{one[0]}' and '{other[0]}' are two parameters on one memory: what is pruned of one is pruned of the "
                "other, and counted twice. Make them one parameter (b.weight = a.weight), compute the one from the "
                "other in forward, or leave out both with Targets(exclude=...)"
            )


def _check_one_device(targets: Sequence[Target]) -> None:
    first = {local(target.parameter).device: target.name for target in reversed(targets)}
    if len(first) > 1:
        where = ", ".join(f"'{name}' on {device}" for device, name in reversed(first.items()))
        raise ValueError(
            f"weights to prune lie on several devices ({where}), and are not ranked across them: put the model on one, "
            "or prune what lies on each by a callback of its own, with Targets(include=...) and a tag"
        )


def _check_not_masked(target: Target) -> None:
    for name, (module, attribute) in zip(target.names, target.owners, strict=True):
        plain = attribute.removesuffix("_orig")
        if plain != attribute and f"{plain}_mask" in module._buffers:  # pyright: ignore[reportPrivateUsage]
            path = name.rpartition(".")[0]
            raise ValueError(
                f"'{name}' is masked by torch.nn.utils.prune: its zeros are in '{plain}_mask' and would be counted as "
                f"weights. Call torch.nn.utils.prune.remove(module, '{plain}') on '{path}' before pruning"
            )


def _shared(model: nn.Module) -> list[tuple[tuple[str, Tensor], tuple[str, Tensor]]]:
    """Return pairs of different parameters that share an entry."""
    on: dict[tuple[str, int], list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        place = _storage(parameter)
        if place is not None:
            on.setdefault(place, []).append((plain_name(name), parameter))
    pairs: list[tuple[tuple[str, Tensor], tuple[str, Tensor]]] = []
    for tensors in on.values():
        ordered = sorted(tensors, key=lambda named: _first(named[1]))
        for number, one in enumerate(ordered):
            for other in ordered[number + 1 :]:
                if _first(other[1]) >= _end(one[1]):
                    break
                if _overlap(one[1], other[1]):
                    pairs.append((one, other))
    return pairs


def _storage(tensor: Tensor) -> tuple[str, int] | None:
    parameter = local(tensor)
    if parameter.layout != torch.strided or parameter.is_meta or not parameter.numel():
        return None
    try:
        return str(parameter.device), parameter.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError, ValueError):  # a parameter without a shape, or a tensor subclass
        return None


def _first(parameter: Tensor) -> int:
    tensor = local(parameter)
    return int(tensor.storage_offset()) * tensor.element_size()


def _end(parameter: Tensor) -> int:
    tensor = local(parameter)
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (int(tensor.storage_offset()) + int(span) + 1) * tensor.element_size()


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors on one storage, whose ranges overlap, share an entry: columns in turn do not."""
    if one.element_size() != other.element_size():
        return True
    one, other = local(one), local(other)
    first = min(one.storage_offset(), other.storage_offset())
    taken = torch.zeros(max(_end(one), _end(other)) // one.element_size() - first, dtype=torch.bool)
    taken.as_strided(one.shape, one.stride(), one.storage_offset() - first).fill_(True)
    return bool(taken.as_strided(other.shape, other.stride(), other.storage_offset() - first).any())
