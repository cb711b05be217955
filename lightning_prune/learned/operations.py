"""Learned masks as operations of torch, which compiled code calls as they are: its graph stays whole.

Traced, a generator and a hash break the graph each, and the number of the step, which decides the draws, has it
compiled anew at every step. An operation takes tensors and numbers alone, so a number says whose masks are meant.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Source(Protocol):
    """Knows masks; see `Learning`."""

    def draw(self, number: int, reader: int, batch: int) -> Tensor: ...

    def sample(self, number: int, logits: Tensor, uniform: Tensor, progress: float) -> Tensor: ...

    def settled(self, number: int, weight: Tensor | None) -> Tensor: ...

    @property
    def progress(self) -> float: ...


class Named:
    """A source under the number that operations know it by, for as long as this object lives.

    Attributes:
        key: the number.
        turn: counts the calls. Operations write to it, so that none of two equal ones is left out or put off.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.key = next(_keys)
        self.turn = torch.zeros(1, dtype=torch.int64)
        _named[self.key] = self

    def masks(self, number: int, reader: int, batch: int, logits: Tensor) -> Tensor:
        """Return random masks of a group, (batch, units), differentiable in its logits."""
        uniform, progress = _draw(self.turn, logits.detach(), self.key, number, reader, batch)
        return _sample(logits, uniform, progress, self.key, number)

    def settled(self, number: int, weight: Tensor | None, units: int, logits: Tensor) -> Tensor:
        """Return by what units are multiplied in evaluation, (units,)."""
        here = None if weight is None else weight.detach()
        dtype = torch.float64 if weight is not None and weight.dtype == torch.float64 else torch.float32
        return _settled(self.turn, logits.detach(), here, self.key, number, units, dtype)


# A compiled graph holds no Python objects: it has numbers, and this is where they are looked up.
_keys = count()
_named: WeakValueDictionary[int, Named] = WeakValueDictionary()
_tag: Any = getattr(torch.Tag, "cudagraph_unsafe", None)  # not in every version
_make: Any = torch.library.custom_op
_operation = _make if _tag is None else partial(_make, tags=(_tag,))  # a replayed graph would draw the same again


def _recording() -> Any:
    """Have autograd see what is computed: inside an operation it is told to look away."""
    core: Any = torch._C  # pyright: ignore[reportPrivateUsage]
    return core._SetExcludeDispatchKeyGuard(core.DispatchKey.AutogradFunctionality, False)


@_operation(
    "lightning_prune::draw",
    mutates_args=("turn",),
    schema="(Tensor(a!) turn, Tensor like, int key, int number, int reader, SymInt batch) -> (Tensor, Tensor)",
)
def _draw(turn: Tensor, like: Tensor, key: int, number: int, reader: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return draws from U(0, 1), (batch, units), where one of each unit lies, and the share of the window."""
    turn += 1
    source = _named[key].source
    # Readers of one forward share a draw; who calls an operation may write to what it returns.
    return source.draw(number, reader, batch).clone(), torch.tensor(source.progress, dtype=torch.float64)


@_draw.register_fake
def _(turn: Tensor, like: Tensor, key: int, number: int, reader: int, batch: int) -> tuple[Tensor, Tensor]:
    drawn = torch.empty(batch, len(like), dtype=torch.float32, device=like.device)
    return drawn, torch.empty((), dtype=torch.float64)


@_operation(
    "lightning_prune::sample",
    mutates_args=(),
    schema="(Tensor logits, Tensor uniform, Tensor progress, int key, int number) -> Tensor",
)
def _sample(logits: Tensor, uniform: Tensor, progress: Tensor, key: int, number: int) -> Tensor:
    """Return the masks of draws, of their shape."""
    return _named[key].source.sample(number, logits.detach(), uniform, float(progress)).to(logits.dtype)


@_sample.register_fake
def _(logits: Tensor, uniform: Tensor, progress: Tensor, key: int, number: int) -> Tensor:
    return torch.empty_like(uniform, dtype=logits.dtype)


@_operation(
    "lightning_prune::sample_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor logits, Tensor uniform, Tensor progress, int key, int number) -> Tensor",
)
def _sample_backward(grad: Tensor, logits: Tensor, uniform: Tensor, progress: Tensor, key: int, number: int) -> Tensor:
    """Return the gradient of the logits for that of the masks."""
    with torch.enable_grad(), _recording():
        leaf = logits.detach().requires_grad_()
        masks = _named[key].source.sample(number, leaf, uniform, float(progress)).to(logits.dtype)
    (found,) = torch.autograd.grad(masks, leaf, grad)
    return found


@_sample_backward.register_fake
def _(grad: Tensor, logits: Tensor, uniform: Tensor, progress: Tensor, key: int, number: int) -> Tensor:
    return torch.empty_like(logits)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, uniform, progress, ctx.key, ctx.number = inputs
    ctx.save_for_backward(logits, uniform, progress)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _sample_backward(grad, *ctx.saved_tensors, ctx.key, ctx.number), None, None, None, None


_sample.register_autograd(_backward, setup_context=_remember)


@_operation(
    "lightning_prune::settled",
    mutates_args=("turn",),
    schema="(Tensor(a!) turn, Tensor like, Tensor? weight, int key, int number, SymInt units, ScalarType dtype)"
    " -> Tensor",
)
def _settled(
    turn: Tensor, like: Tensor, weight: Tensor | None, key: int, number: int, units: int, dtype: torch.dtype
) -> Tensor:
    """Return by what units are multiplied in evaluation."""
    turn += 1
    return _named[key].source.settled(number, weight).to(dtype)


@_settled.register_fake
def _(
    turn: Tensor, like: Tensor, weight: Tensor | None, key: int, number: int, units: int, dtype: torch.dtype
) -> Tensor:
    return torch.empty(units, device=like.device, dtype=dtype)
