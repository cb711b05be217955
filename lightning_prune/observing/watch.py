"""A hook on a layer that sees what it reads or gives in training, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Kind = Literal["input", "output", "saliency"]


class Watch:
    """Watches one layer: hands over its first input, its output, or its first input times the gradient of the loss.

    Forwards count in training alone: not in evaluation, not without gradients, and not the second ones that activation
    checkpointing makes in the backward; reentrant checkpointing makes its first ones without gradients, and then the
    second ones do. Copies and pickles of the model do not watch.

    Args:
        module: the layer.
        kind: what is handed over.
        see: called with it, without gradients: in the forward, for "saliency" in the backward.
        compiled: the layer may be in code of torch.compile, which is to call this and not to trace it.
    """

    def __init__(self, module: nn.Module, kind: Kind, see: Callable[..., None], compiled: bool = False) -> None:
        self._kind = kind
        self._see = see
        self._owed = 0  # forwards without gradients, which may be made again in the backward
        disable: Any = torch.compiler.disable if compiled else lambda act: act
        act = _Hook(disable(self._before if kind != "output" else self._after))
        self._handle = (
            module.register_forward_hook(act, with_kwargs=True)
            if kind == "output"
            else module.register_forward_pre_hook(act, with_kwargs=True)
        )

    def remove(self) -> None:
        """Watch no longer."""
        self._handle.remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._counts(module):
            return
        x = args[0] if args else next(iter(kwargs.values()))
        if self._kind == "input":
            self._see(x if isinstance(x, PackedSequence) else x.detach())
            return
        packed = isinstance(x, PackedSequence)
        values: Tensor = x.data if packed else x
        if values.requires_grad:
            # What the hook holds must not lead back to `values`: such a circle, through autograd, is never let go.
            kept = x._replace(data=values.detach()) if packed else values.detach()
            values.register_hook(partial(self._times, kept))

    def _times(self, kept: Any, grad: Tensor) -> None:
        packed = isinstance(kept, PackedSequence)
        product = (kept.data if packed else kept) * grad.detach()
        self._see(kept._replace(data=product) if packed else product)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._counts(module):
            self._see(output.detach())

    def _counts(self, module: nn.Module) -> bool:
        in_backward = torch._C._current_graph_task_id() != -1  # pyright: ignore
        if not module.training:
            return False
        if not torch.is_grad_enabled():
            self._owed += not in_backward
            return False
        if not in_backward:
            self._owed = 0  # what was forwarded without gradients before is of another pass
            return True
        again = self._owed > 0
        self._owed -= again
        return again


class _Hook:
    """A hook that copies of the model and pickles leave out."""

    def __init__(self, act: Callable[..., None]) -> None:
        self._act = act

    def __call__(self, *args: Any) -> None:
        self._act(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return _Hook(_nothing)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _Hook, (_nothing,)


def _nothing(*_: Any) -> None:
    """Do nothing."""
