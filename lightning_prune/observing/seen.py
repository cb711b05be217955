"""A layer's input and output as criteria see them: examples first, positions last; views where that can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils.rnn import PackedSequence


def why_unseen(module: nn.Module, units: bool = False) -> str | None:
    """Return why what a layer computes with cannot be seen from outside; None if it can.

    Args:
        module: the layer.
        units: only its input is looked at, and nothing of what it multiplies: recurrent layers and attention have one.
    """
    kind = type(module).__name__
    if isinstance(module, _ConvNd) and module.transposed and module.groups > 1 and not units:
        return f"{kind} in groups has one row of weights for outputs of every group"
    if isinstance(module, (nn.Linear, _ConvNd)) or kind == "Conv1D":
        # attention takes the weights out of this one, and never calls it
        return "attention reads them inside" if kind == "NonDynamicallyQuantizableLinear" else None
    if units and isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return None
    return f"{kind} reads them inside"


def inputs_of(module: Any, x: Tensor) -> Tensor:
    """Return what the entries of a layer's weight multiply, (examples, groups, inputs, *kernel, *positions): a view.

    The middle dimensions are those of the weight, output dimension first, behind its outputs; the outputs of group g
    read `[:, g]`. Summed over positions, weight times this is the layer's output without its bias.

    Args:
        module: a linear layer, or a convolution, transposed or not.
        x: what it is called with; examples first, unless it has one dimension only.
    """
    if not isinstance(module, _ConvNd):
        return _rows(x).unsqueeze(1)
    spatial = len(module.kernel_size)
    x = _maps(module, x)
    strides = module.stride
    if module.transposed:
        x, strides = _spread(module, x), (1,) * spatial
    elif module.padding_mode != "zeros":
        x = functional.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)  # pyright: ignore
    elif any(around := [n for pair in reversed(_padding(module)) for n in pair]):
        x = functional.pad(x, around)
    for dim, (size, stride, dilation) in enumerate(zip(module.kernel_size, strides, module.dilation, strict=True)):
        x = x.unfold(dim + 2, dilation * (size - 1) + 1, int(stride))[..., ::dilation]
    x = x.unflatten(1, (module.groups, -1))  # examples, groups, inputs, *positions, *kernel
    if module.transposed:  # the last kernel entry reads what came first
        x = x.flip(list(range(3 + spatial, 3 + 2 * spatial)))
    return x.movedim(list(range(3 + spatial, 3 + 2 * spatial)), list(range(3, 3 + spatial)))


def squared_inputs_of(module: Any, x: Tensor) -> Tensor:
    """Return the squares of what `inputs_of` gives, summed over examples, which are one then: (1, groups, ...)."""
    examples = _maps(module, x) if isinstance(module, _ConvNd) else x.reshape(-1, x.shape[-1])
    squares = examples.square().sum(0, keepdim=True, dtype=_wide(x))
    return inputs_of(module, squares)  # patches copy values, or are zero


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def width_of(module: Any) -> int:
    """Return how many channels a layer reads."""
    for attribute in ("in_features", "in_channels", "input_size", "embed_dim"):
        if hasattr(module, attribute):
            return int(getattr(module, attribute))
    return int(module.nx)


def outputs_of(module: Any, y: Tensor) -> Tensor:
    """Return what a layer gives without its bias, (examples, outputs, positions)."""
    found = _maps(module, y).flatten(2) if isinstance(module, _ConvNd) else _rows(y)
    bias = getattr(module, "bias", None)
    return found if bias is None else found - bias.detach().to(found.dtype)[:, None]


def units_of(module: Any, x: Tensor | PackedSequence, index: Tensor | None) -> Tensor:
    """Return the values of units where a layer reads them, (examples, units, positions).

    Args:
        module: the layer that reads them.
        x: its input.
        index: (units, n), the channels of each unit; those of one lie beside its positions. None: each is a unit.
    """
    if isinstance(x, PackedSequence):  # every step of every sequence is an example
        found = x.data.unsqueeze(2)
    elif isinstance(module, _ConvNd):
        found = _maps(module, x).flatten(2)
    else:
        second = isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and not module.batch_first
        found = _rows(x.transpose(0, 1) if second and x.dim() == 3 else x)
    if index is None:
        return found
    index = index.to(found.device)
    picked = found.index_select(1, index.flatten())
    return picked.unflatten(1, tuple(index.shape)).flatten(2)


def _rows(x: Tensor) -> Tensor:
    """Return (examples, channels, positions) of what has its channels last; a single vector is one example."""
    rows = x.reshape(1, 1, -1) if x.dim() == 1 else x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)
    return rows.transpose(1, 2)


def _maps(module: Any, x: Tensor) -> Tensor:
    """Return what a convolution reads or gives with its examples first; a single one is one example."""
    return x if x.dim() == len(module.kernel_size) + 2 else x.unsqueeze(0)


def _padding(module: Any) -> list[tuple[int, int]]:
    """Return how much is put before and behind each spatial dimension."""
    if isinstance(module.padding, str):
        around = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return [(n // 2, n - n // 2) if module.padding == "same" else (0, 0) for n in around]
    return [(int(n), int(n)) for n in module.padding]


def _spread(module: Any, x: Tensor) -> Tensor:
    """Return the input of a transposed convolution as that of a plain one: zeros between the values and around them."""
    spatial = len(module.kernel_size)
    sizes: Sequence[int] = [s * (n - 1) + 1 for n, s in zip(x.shape[2:], module.stride, strict=True)]
    spread = x.new_zeros(*x.shape[:2], *sizes)
    spread[(slice(None), slice(None), *(slice(None, None, int(s)) for s in module.stride))] = x
    around: list[int] = []
    for dim in reversed(range(spatial)):
        edge = int(module.dilation[dim] * (module.kernel_size[dim] - 1) - module.padding[dim])
        around += [edge, edge + int(module.output_padding[dim])]
    return functional.pad(spread, around)


def channels_of(module: Any, index: Tensor) -> Tensor:
    """Return the input channels, (units, n), that columns of a layer's weight multiply: in a grouped convolution many.

    Args:
        module: the layer.
        index: (units, n) columns.
    """
    groups = module.groups if isinstance(module, _ConvNd) and not module.transposed else 1
    if groups == 1:
        return index
    size = module.in_channels // groups  # a weight's column serves the same place of every group
    return torch.cat([index + group * size for group in range(groups)], dim=1)
