"""A layer computes with a masked copy of its weight; the parameter itself stays where it is.

A plain attribute of a module hides the parameter of that name, which is found only where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from lightning_prune.learned.hooks import SharedHook

Factor = Callable[[Tensor, bool], Tensor]
"""A parameter, whether in training -> by what it is multiplied, of a shape that broadcasts to its own."""


class Handle(Protocol):
    """A hook's handle."""

    def remove(self) -> None: ...


class MaskWeight(SharedHook):
    """Multiplies a parameter by a factor for the time of a forward.

    Attributes:
        inner: path of the module that holds the parameter, from the one that is called; empty for that one itself.
        attribute: the parameter's name in its module.
        factor: gives the factor.
    """

    def __init__(self, inner: str, attribute: str, factor: Factor) -> None:
        self.inner = inner
        self.attribute = attribute
        self.factor = factor

    def __call__(self, module: nn.Module, *_: Any) -> None:
        """Put the masked weight in the parameter's place."""
        holder = module.get_submodule(self.inner)
        parameter: Tensor = holder._parameters[self.attribute]  # pyright: ignore
        factor = self.factor(parameter, module.training)
        holder.__dict__[self.attribute] = parameter * factor.to(parameter.dtype)
        _refresh(holder)


class ShowWeight:
    """Takes the masked weight out again."""

    def __init__(self, inner: str, attribute: str) -> None:
        self.inner = inner
        self.attribute = attribute

    def __call__(self, module: nn.Module, *_: Any) -> None:
        """Let the parameter be seen again."""
        holder = module.get_submodule(self.inner)
        holder.__dict__.pop(self.attribute, None)
        _refresh(holder)


def mask_weight(model: nn.Module, holder: nn.Module, attribute: str, factor: Factor) -> list[Handle]:
    """Have a module of a model compute with a parameter times a factor. Remove the handles to end it."""
    user = _user(model, holder)
    called, inner = (holder, "") if user is None else (user, "out_proj")
    away = ShowWeight(inner, attribute)
    return [
        called.register_forward_pre_hook(MaskWeight(inner, attribute, factor)),
        called.register_forward_hook(away, always_call=True),
        ShowWeightAtEnd(called, away),
    ]


def read_inside(model: nn.Module, module: nn.Module, attribute: str) -> bool:
    """Return whether a weight of a module reads inside it: the states of a recurrent layer, anything in attention."""
    if isinstance(module, nn.RNNBase):
        return not attribute.startswith("weight_ih_l0")
    return isinstance(module, nn.MultiheadAttention) or _user(model, module) is not None


def _user(model: nn.Module, layer: nn.Module) -> nn.MultiheadAttention | None:
    """Return the attention that uses the weight of its output layer without calling that layer."""
    attentions = (module for module in model.modules() if isinstance(module, nn.MultiheadAttention))
    return next((attention for attention in attentions if attention.out_proj is layer), None)


class ShowWeightAtEnd:
    """Takes the masked weight out at the end: an interrupt in the middle of a forward leaves it in."""

    def __init__(self, module: nn.Module, away: ShowWeight) -> None:
        self.module = module
        self.away = away

    def remove(self) -> None:
        """Let the parameter be seen again."""
        self.away(self.module)


def _refresh(module: nn.Module) -> None:
    """Recurrent layers compute with a list of their weights."""
    if isinstance(module, nn.RNNBase):
        names: list[str] = module._flat_weights_names  # pyright: ignore
        module.__dict__["_flat_weights"] = [getattr(module, name) for name in names]
