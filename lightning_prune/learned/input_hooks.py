"""A layer reads its input times masks: where learned masks on units act, so after norm and activation."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils.rnn import PackedSequence

from lightning_prune.coupling.units import Group
from lightning_prune.learned.hooks import Masking, SharedHook


class Factors:
    """By what the channels that a layer reads are multiplied: each by the mask of its unit, the others by 1.

    Args:
        channels: how many there are.
        read: number of a group -> the channels, (units, n), that are its units.
        masking: gives the masks.
        shared: groups with one draw for the whole batch.
        reader: the number of who reads.
    """

    def __init__(
        self, channels: int, read: Mapping[int, Tensor], masking: Masking, shared: Container[int], reader: int
    ) -> None:
        self._draws = [(number, number not in shared) for number in read]
        self._masking = masking
        self._reader = reader
        # Every channel picks its factor from (1, units of the first group, units of the second, ...).
        self._picks = torch.zeros(channels, dtype=torch.int64)
        first = 1
        for index in read.values():
            units = torch.arange(first, first + len(index))
            self._picks[index.flatten()] = units.repeat_interleave(index.shape[1])
            first += len(index)

    def __call__(self, batch: int, training: bool) -> Tensor:
        """Return them for a batch, (batch or 1, channels)."""
        masks = [self._masking(n, self._reader, (batch if each else 1) if training else 0) for n, each in self._draws]
        rows = max(len(mask) for mask in masks)
        all_masks = [masks[0].new_ones(rows, 1), *(mask.expand(rows, -1) for mask in masks)]
        return torch.cat(all_masks, dim=1)[:, self._picks.to(masks[0].device)]

    def columns(self, weight: Tensor, training: bool) -> Tensor:
        """Return them for the columns of a weight that reads."""
        return self(1, training)


class MaskInput(SharedHook):
    """Multiplies a layer's input by factors."""

    def __init__(self, factors: Factors) -> None:
        self._factors = factors

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Return the layer's arguments with the input masked."""
        if args:
            return (self.masked(module, args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, kwargs | {name: self.masked(module, kwargs[name])}

    def masked(self, module: nn.Module, x: Any) -> Any:
        """Return the input, each unit multiplied by its mask: in evaluation one for all examples."""
        if isinstance(x, PackedSequence):
            return self._masked_rows(module, x)
        dim = x.dim() - 1 - (len(module.kernel_size) if isinstance(module, _ConvNd) else 0)
        first = batch_dimension(module) if x.dim() == 3 else 0
        factors = self._factors(x.shape[first] if dim else 1, module.training)
        shape = [1] * x.dim()
        shape[dim] = -1
        if dim:
            shape[first] = len(factors)
        return x * factors.to(x.dtype).view(shape)

    def _masked_rows(self, module: nn.Module, x: PackedSequence) -> PackedSequence:
        """Do the same to a packed sequence, whose rows are those of the first step, of the second, ..."""
        batch = int(x.batch_sizes[0])
        factors = self._factors(batch, module.training).to(x.data.dtype)
        if len(factors) == 1:
            return x._replace(data=x.data * factors)
        examples = torch.cat([torch.arange(int(size)) for size in x.batch_sizes]).to(x.data.device)
        examples = examples if x.sorted_indices is None else x.sorted_indices[examples]
        return x._replace(data=x.data * factors[examples])


def unreadable(model: nn.Module, group: Group) -> str | None:
    """Return why the units of a group cannot be masked where they are read, None if they can."""
    for part in group.of("in"):
        module = model.get_submodule(part.name.rpartition(".")[0])
        kind, known = type(module).__name__, (nn.Linear, nn.RNNBase, nn.MultiheadAttention, _ConvNd)
        if not (isinstance(module, known) or kind == "Conv1D"):
            return f"{kind} reads them inside, where no mask can be put"
        if len(_owners(model, part.name)) > 1:
            return f"{part.name} is tied: several layers read with it"
    return None if any(group.of("in")) else "nobody reads them"


def batch_dimension(module: nn.Module) -> int:
    """Return the dimension of a layer's input along which examples lie; that it is the first is all that is known."""
    return 1 if isinstance(module, nn.RNNBase) and not module.batch_first else 0


def _owners(model: nn.Module, name: str) -> list[nn.Module]:
    tensor = model.get_parameter(name)
    return [m for m in model.modules() if any(p is tensor for p in m.parameters(recurse=False))]
