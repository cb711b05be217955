"""Another tensor in a parameter's place while its layer computes; the parameter itself stays where it is.

A plain attribute of a module hides the parameter of that name, which is found only where there is none.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_prune.readers import Masking, Nothing


class Shadow:
    """Multiplies a parameter by its mask for the time of a forward.

    Attributes:
        inner: path of the module that holds the parameter, from the one that is called; empty for that one itself.
        attribute: the parameter's name in its module.
        number: the number of its mask.
        masking: gives the mask.
    """

    def __init__(self, inner: str, attribute: str, number: int, masking: Masking) -> None:
        self.inner = inner
        self.attribute = attribute
        self.number = number
        self.masking = masking

    def __deepcopy__(self, memo: dict[int, Any]) -> Shadow:
        """Return itself: a copy of the model computes with the same masks."""
        return self

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Leave nothing in a pickle but a hook that does nothing."""
        return Nothing, ()

    def __call__(self, module: nn.Module, *_: Any) -> None:
        """Put the masked weight in the parameter's place."""
        holder = module.get_submodule(self.inner)
        parameter: Tensor = holder._parameters[self.attribute]  # pyright: ignore
        mask = self.masking(self.number, self, 1 if module.training else 0)
        holder.__dict__[self.attribute] = parameter * mask.to(parameter.dtype).view(parameter.shape)
        _refresh(holder)


class Away:
    """Takes the masked weight out again."""

    def __init__(self, inner: str, attribute: str) -> None:
        self.inner = inner
        self.attribute = attribute

    def __call__(self, module: nn.Module, *_: Any) -> None:
        """Let the parameter be seen again."""
        holder = module.get_submodule(self.inner)
        holder.__dict__.pop(self.attribute, None)
        _refresh(holder)


def hook(module: nn.Module, inner: str, attribute: str, number: int, masking: Masking) -> list[RemovableHandle]:
    """Have a module compute with a masked parameter, its own or one inside. Remove the handles to end it."""
    return [
        module.register_forward_pre_hook(Shadow(inner, attribute, number, masking)),
        module.register_forward_hook(Away(inner, attribute), always_call=True),
    ]


def _refresh(module: nn.Module) -> None:
    """Recurrent layers compute with a list of their weights."""
    if isinstance(module, nn.RNNBase):
        names: list[str] = module._flat_weights_names  # pyright: ignore
        module.__dict__["_flat_weights"] = [getattr(module, name) for name in names]
