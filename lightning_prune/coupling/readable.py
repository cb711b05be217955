"""Operations that a dependency graph cannot read, with layers in their place while a model runs to be traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from lightning_prune.coupling.example import call, tensors
from lightning_prune.coupling.training import mode


class _Mixed(torch.autograd.Function):
    """A value that hangs on all of some inputs: shapes are right, gradients are not to be had."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *inputs: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("the graph is read, never run")


class _Flow(torch.autograd.Function):
    """All of a recurrent layer's answers, from one function: shapes are right, values are not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.RNNBase, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ways, batched = 1 + module.bidirectional, x.dim() == 3
        batch = (x.shape[0 if module.batch_first else 1],) if batched else ()
        layers, width = (module.num_layers * ways, *batch), module.proj_size or module.hidden_size
        out, hidden = x.new_zeros(*x.shape[:-1], ways * width), x.new_zeros(*layers, width)
        return out, hidden, x.new_zeros(*layers, module.hidden_size)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("the graph is read, never run")


class Constant(nn.Module):
    """A node for channels that no layer computes, such as an input that is concatenated with features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.link = nn.Parameter(torch.zeros(()))

    def forward(self, value: Tensor) -> Tensor:
        """Return the value, as the answer of this layer."""
        return _Mixed.apply(value, self.link)  # pyright: ignore


class Readable(TorchFunctionMode):
    """Run a model with gated linear units taken apart, and with a `Constant` for each constant in a concatenation.

    Args:
        constants: the layers to use, in the order of the run; None for a run that only finds their sizes.

    Attributes:
        sizes: of each constant its size along the dimension of the concatenation.
    """

    def __init__(self, constants: Sequence[nn.Module] | None = None) -> None:
        super().__init__()
        self.constants = constants
        self.sizes: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, or what stands for it."""
        kwargs = kwargs or {}
        if func is nn.functional.glu:
            return _glu(*args, **kwargs)
        if func in (torch.cat, torch.concat, torch.concatenate):
            return self._cat(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _cat(
        self, func: Callable[..., Tensor], tensors: Sequence[Tensor], dim: int = 0, axis: int | None = None, **out: Any
    ) -> Tensor:
        along = dim if axis is None else axis
        if any(t.requires_grad for t in tensors):
            tensors = [t if t.requires_grad else self._constant(t, along) for t in tensors]
        return func(tensors, along, **out)

    def _constant(self, tensor: Tensor, dim: int) -> Tensor:
        if not tensor.is_floating_point() or not tensor.numel():  # an empty one may have fewer dimensions
            return tensor
        number = len(self.sizes)
        self.sizes.append(tensor.shape[dim])
        if self.constants is None or number >= len(self.constants):
            return tensor
        return self.constants[number](tensor)


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()


class Traced(nn.Module):
    """A model that is called as ever, and runs readably."""

    def __init__(self, model: nn.Module, constants: nn.ModuleList, in_training: bool = False) -> None:
        super().__init__()
        self.model = model
        self.constants = constants
        self.in_training = in_training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model does."""
        with mode(self.model, self.in_training), Readable(list(self.constants)):
            return self.model(*args, **kwargs)


def constants_of(model: nn.Module, example_inputs: Any, training: bool = False) -> nn.ModuleList:
    """Return a layer for each constant that the model concatenates with features when it is called."""
    with mode(model, training), Readable() as found:
        call(model, example_inputs)
    device = next((p.device for p in model.parameters()), None)
    return nn.ModuleList(Constant(size) for size in found.sizes).to(device)


def stand_in(model: nn.Module, whole: set[type[nn.Module]]) -> None:
    """Have each recurrent layer and each module of some classes be one node of the graph.

    Else they are one for each time step, or many that cross.

    Args:
        model: a copy that may be changed.
        whole: the classes of attention modules, and of norms that the graph would see as products and means.
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.forward = partial(_recurrent, module)
        elif type(module) in whole:
            module.forward = partial(_whole, module)


def _whole(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        out = type(module).forward(module, *args, **kwargs)
    mixed = [t for t in tensors((args, kwargs)) if t.requires_grad]
    if isinstance(out, Tensor):
        return _Mixed.apply(out, *mixed, *module.parameters())
    return (_Mixed.apply(out[0], *mixed, *module.parameters()), *out[1:])


def _recurrent(module: nn.RNNBase, x: Any, *state: Any) -> Any:
    if isinstance(x, PackedSequence):
        rows, hidden, cell = _Flow.apply(x.data, module, *module.parameters())  # pyright: ignore
        hidden, cell = (s[:, None].expand(-1, int(x.batch_sizes[0]), -1) for s in (hidden, cell))
        out: Any = x._replace(data=rows)
    else:
        out, hidden, cell = _Flow.apply(x, module, *module.parameters())  # pyright: ignore
    return (out, (hidden, cell)) if isinstance(module, nn.LSTM) else (out, hidden)
