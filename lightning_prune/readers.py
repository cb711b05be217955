"""Where learned masks act: on what layers read, so after norm and activation, whatever these are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.utils.hooks import RemovableHandle

from lightning_prune.coupling.units import Group, Part

Masking = Callable[[int, object, int], Tensor]
"""Number of a group, who asks, size of the batch -> mask (batch or 1, units)."""


class Reader:
    """A layer that reads units, with a hook that multiplies its input by their masks.

    Attributes:
        module: the layer.
        groups: the numbers of the groups that it reads.
        masking: gives the masks.
    """

    def __init__(self, module: nn.Module, read: Mapping[int, Tensor], masking: Masking) -> None:
        self.module = module
        self.groups = tuple(read)
        self.masking = masking
        # Every input channel picks its factor from (1, units of the first group, units of the second, ...).
        self._picks = torch.zeros(_channels(module), dtype=torch.int64)
        first = 1
        for index in read.values():
            units = torch.arange(first, first + len(index))
            self._picks[index.flatten()] = units.repeat_interleave(index.shape[1])
            first += len(index)

    def __deepcopy__(self, memo: dict[int, Any]) -> Reader:
        """Return itself: a copy of the model, as averages of weights keep one, reads through the same masks."""
        return self

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Leave nothing in a pickle but a hook that does nothing."""
        return Nothing, ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Return the layer's arguments with the input masked."""
        if args:
            return (self.masked(module, args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, kwargs | {name: self.masked(module, kwargs[name])}

    def masked(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return the input, each unit multiplied by its mask: in evaluation one for all examples."""
        dim = x.dim() - 1 - (len(module.kernel_size) if isinstance(module, _ConvNd) else 0)
        first = 1 if isinstance(module, nn.RNNBase) and x.dim() == 3 and not module.batch_first else 0
        batch = x.shape[first] if dim else 1
        masks = [self.masking(number, self, batch if module.training else 0) for number in self.groups]
        factors = torch.cat([masks[0].new_ones(len(masks[0]), 1), *masks], dim=1)[:, self._picks.to(x.device)]
        shape = [1] * x.dim()
        shape[dim] = -1
        if dim:
            shape[first] = len(factors)
        return x * factors.to(x.dtype).view(shape)


class Nothing:
    """A hook that does nothing."""

    def __call__(self, *_: Any) -> None:
        """Leave all as it is."""


def unreadable(model: nn.Module, group: Group) -> str | None:
    """Return why the units of a group cannot be masked where they are read, None if they can."""
    for part in group.of("in"):
        path, _, attribute = part.name.rpartition(".")
        module, kind = model.get_submodule(path), type(model.get_submodule(path)).__name__
        if isinstance(model.get_submodule(path.rpartition(".")[0]), nn.MultiheadAttention):
            return "MultiheadAttention reads them inside, where no mask can be put"
        if isinstance(module, nn.RNNBase) and not attribute.startswith("weight_ih_l0"):
            return f"{kind} reads them inside, where no mask can be put"
        if not (isinstance(module, (nn.Linear, nn.RNNBase, _ConvNd)) or kind == "Conv1D"):
            return f"{kind} reads them inside, where no mask can be put"
        if len(_owners(model, part.name)) > 1:
            return f"{part.name} is tied: several layers read with it"
    return None if any(group.of("in")) else "nobody reads them"


def readers_of(modules: Mapping[str, nn.Module], groups: Sequence[Group], masking: Masking) -> list[Reader]:
    """Return a reader for every layer that reads units of the groups; `modules` has the layer of each weight."""
    read: dict[nn.Module, dict[int, Tensor]] = {}
    for number, group in enumerate(groups):
        for part in group.of("in"):
            module = modules[part.name]
            places = _input_places(module, part)
            before = read.setdefault(module, {}).get(number)
            read[module][number] = places if before is None else torch.cat([before, places], dim=1)
    return [Reader(module, places, masking) for module, places in read.items()]


def hook(readers: Sequence[Reader]) -> list[RemovableHandle]:
    """Have each layer read through its reader. Remove the handles to end it."""
    return [reader.module.register_forward_pre_hook(reader, with_kwargs=True) for reader in readers]


def _channels(module: Any) -> int:
    for attribute in ("in_features", "in_channels", "input_size"):
        if hasattr(module, attribute):
            return int(getattr(module, attribute))
    return int(module.nx)


def _input_places(module: Any, part: Part) -> Tensor:
    """Return the input channels, (units, n), that the entries of a part multiply."""
    groups = module.groups if isinstance(module, _ConvNd) and not module.transposed else 1
    if groups == 1:
        return part.index
    size = module.in_channels // groups  # a weight's column serves the same place of every group
    return torch.cat([part.index + group * size for group in range(groups)], dim=1)


def _owners(model: nn.Module, name: str) -> list[nn.Module]:
    tensor = model.get_parameter(name)
    return [m for m in model.modules() if any(p is tensor for p in m.parameters(recurse=False))]
