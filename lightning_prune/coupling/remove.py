"""Take dead units out of a model: smaller tensors, and layers that say their new size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.attention import fewer_heads
from lightning_prune.coupling.layers import layer_of
from lightning_prune.coupling.units import Group, alive_along, tensors_of

Attributes = dict[str, dict[str, Any]]
"""Module -> attribute -> value."""


@torch.no_grad()
def remove(model: nn.Module, groups: Sequence[Group], keeps: Sequence[Tensor]) -> Attributes:
    """Remove, in place, the units that are not kept, and return the attributes of modules that changed.

    Parameters become new ones; an optimizer made before does not know them.
    """
    tensors = tensors_of(model)
    alive = alive_along(groups, keeps, {name: t.shape for name, t in tensors.items()})
    smaller: dict[str, Tensor] = {}
    for name, dims in alive.items():
        data = tensors[name].detach()
        for dim, keep in dims.items():
            if not keep.all():
                data = data.index_select(dim, keep.nonzero().flatten().to(data.device))
        if data.shape != tensors[name].shape:
            smaller[name] = data.clone()
    counts: Attributes = {}
    for group, keep in zip(groups, keeps, strict=True):
        for count in group.counts:
            here = counts.setdefault(count.module, {})
            before = here.get(count.attribute, getattr(model.get_submodule(count.module), count.attribute))
            here[count.attribute] = before - count.each * int((~keep).sum())
    changed = put(model, smaller)
    for path in changed:
        module = model.get_submodule(path)
        layer = layer_of(module)
        if layer is not None:
            counts.setdefault(path, {}).update(layer.size(module))
    set_attributes(model, counts)
    return counts


def put(model: nn.Module, smaller: Mapping[str, Tensor]) -> set[str]:
    """Put tensors in the place of those of these names, tied ones in all their places; return the modules' paths."""
    old = {id(t): name for name, t in tensors_of(model).items() if name in smaller}
    made: dict[str, Tensor] = {}
    changed: set[str] = set()
    for path, module in model.named_modules():
        own = {**vars(module)["_parameters"], **vars(module)["_buffers"]}
        for attribute, tensor in own.items():
            name = old.get(id(tensor))
            if name is None:
                continue
            if name not in made:
                data = smaller[name]
                made[name] = nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
            setattr(module, attribute, made[name])
            changed.add(path)
    return changed


def set_attributes(model: nn.Module, attributes: Attributes) -> None:
    """Set attributes of modules. Torch's attention becomes one that takes any number of heads.

    Weights of recurrent layers that were replaced before lie in one piece of memory again, as cuDNN wants them.
    """
    for path, values in attributes.items():
        module = model.get_submodule(path)
        if isinstance(module, nn.MultiheadAttention) and "num_heads" in values:
            fewer_heads(model, module)
        for attribute, value in values.items():
            setattr(module, attribute, value)
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
