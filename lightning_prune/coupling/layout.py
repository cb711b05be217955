"""Which dimension of a weight is what: outputs, inputs, a stack of experts, a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd  # pyright: ignore[reportPrivateUsage]

_NAMES = ("out", "in", "expert")


@dataclass(frozen=True)
class Layout:
    """The dimensions of a weight, each by its name.

    Args:
        axes: `out` and `in` once each; `expert` where weights of one shape are stacked, each of them a weight of its
            own; all other names are a kernel's.

    Raises:
        ValueError: no `out` or no `in`, a name twice, or one that looks like a slip for one of the three.
    """

    axes: tuple[str, ...]

    def __post_init__(self) -> None:
        said = repr(" ".join(self.axes))
        for name in self.axes:
            if name not in _NAMES and name.lower().startswith(_NAMES):
                raise ValueError(f"{said} has {name!r}: the names are 'out', 'in' and 'expert'; call a kernel's 'kh'")
            if self.axes.count(name) > 1:
                raise ValueError(f"{said} has {name!r} twice")
        for name in _NAMES[:2]:
            if name not in self.axes:
                raise ValueError(f"{said} has no {name!r}: it needs one 'out' and one 'in', such as 'expert out in'")

    @staticmethod
    def parse(text: str) -> Layout:
        """Return the layout of names separated by blanks, such as "expert in out". Raises as the class does."""
        if not isinstance(text, str):
            raise ValueError(f"{text!r} must be a string of names, such as 'out in'")
        return Layout(tuple(text.split()))

    def __str__(self) -> str:
        """Return the names, separated by blanks."""
        return " ".join(self.axes)

    def experts(self, shape: torch.Size) -> int:
        """Return how many weights are stacked: 1 without a stack."""
        return shape[self.axes.index("expert")] if "expert" in self.axes else 1

    def canonical(self, tensor: Tensor) -> Tensor:
        """Return outputs, inputs, kernel, the experts' outputs one below the other; a view where strides allow it."""
        order = self.order
        turned = tensor if order == sorted(order) else tensor.permute(order)
        return turned.flatten(0, 1) if "expert" in self.axes else turned

    def restore(self, tensor: Tensor, experts: int) -> Tensor:
        """Return a canonical tensor with its dimensions where this layout has them; the inverse of `canonical`."""
        turned = tensor.unflatten(0, (experts, -1)) if "expert" in self.axes else tensor
        order = self.order
        return turned if order == sorted(order) else turned.permute([order.index(dim) for dim in range(len(order))])

    @cached_property
    def order(self) -> list[int]:
        """This layout's dimensions in the order of a canonical tensor, experts before outputs."""
        first = [name for name in ("expert", "out", "in") if name in self.axes]
        return [self.axes.index(name) for name in (*first, *(name for name in self.axes if name not in first))]


def layout_of(module: nn.Module, attribute: str, dimensions: int) -> Layout | None:
    """Return the layout of a parameter that a layer is known to hold in it, None if that is not known."""
    axes = _axes(module, attribute, tuple(f"k{n}" for n in range(dimensions - 2)))
    return Layout(axes) if axes and len(axes) == dimensions else None


def _axes(module: nn.Module, attribute: str, kernel: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(module, nn.MultiheadAttention):
        return ("out", "in") if attribute.endswith("proj_weight") else ()
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return ("out", "in") if attribute.startswith("weight_") else ()
    if attribute != "weight":
        return ()
    if isinstance(module, _ConvNd):
        return ("in", "out", *kernel) if isinstance(module, _ConvTransposeNd) else ("out", "in", *kernel)
    if isinstance(module, nn.Bilinear):
        return ("out", "in", *kernel)
    # Entries of an embedding are outputs, as they are of the head that it is often tied to.
    if isinstance(module, (nn.Linear, nn.Embedding, nn.EmbeddingBag)):
        return ("out", "in")
    return ("in", "out") if _is_conv1d(module) else ()


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, which keeps its weight the other way round."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")
