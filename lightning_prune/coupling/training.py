"""A forward in training mode that can be compared: the branches of training, without chance and without statistics."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]
from torch.overrides import TorchFunctionMode

_DROPOUTS = (
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.dropout,
)
_DRAWN = {torch.rand_like: 0.5, torch.randn_like: 0.5, torch.rand: 0.5, torch.randn: 0.5, torch.bernoulli: 1.0}
_DRAWN_IN_PLACE = {
    Tensor.uniform_: 0.5,
    Tensor.normal_: 0.5,
    Tensor.exponential_: 0.5,
    Tensor.bernoulli_: 1.0,
}


class NoChance(TorchFunctionMode):
    """Run a model without dropout, and with numbers in place of random ones.

    What is drawn has the shape of what it is for: a model with fewer channels would draw other numbers.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, or what stands for it."""
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs["dropout_p"] = 0.0
        out = func(*args, **kwargs)
        if func in _DRAWN:
            return out.fill_(_DRAWN[func])
        return out.fill_(_DRAWN_IN_PLACE[func]) if func in _DRAWN_IN_PLACE else out


@contextmanager
def mode(model: nn.Module, training: bool) -> Generator[None, None, None]:
    """Put a model into evaluation mode for a while, or into training mode with all that is random left out.

    Norms keep to their running statistics and dropout is off in both: what is asked for is the way through the model.
    """
    before = {module: module.training for module in model.modules()}
    rates = {m: m.dropout for m in before if training and isinstance(m, (nn.MultiheadAttention, nn.RNNBase))}
    try:
        for module in before:
            module.training = training and not isinstance(module, (_BatchNorm, _InstanceNorm, _DropoutNd))
        for module in rates:
            module.dropout = 0.0
        if training:
            with NoChance():
                yield
        else:
            yield
    finally:
        for module, was in before.items():
            module.training = was
        for module, rate in rates.items():
            module.dropout = rate
