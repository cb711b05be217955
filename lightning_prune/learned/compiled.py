"""Hooks beside `torch.compile`: compiled code does not look at them again, and cannot draw masks itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from lightning_prune.learned.weight_hooks import Handle

P = ParamSpec("P")
R = TypeVar("R")


class Hooks:
    """Hooks on a model, compiled or not. Code that was compiled before they were put on, or taken off, is made anew.

    It would compute without them, or with them. All code that torch.compile has made in this process is: whether it
    has a model in it cannot be seen on the model, which `torch.compile(model)` leaves as it is.
    """

    def __init__(self) -> None:
        self._handles: list[Handle] = []

    def put(self, handles: Sequence[Handle]) -> None:
        """Take note of some that have just been put on."""
        self._handles += handles
        _forget_compiled()

    def remove(self) -> None:
        """Take them off."""
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            _forget_compiled()


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that compiled code calls as it is, for one break of the graph.

    Traced, a generator and a hash in it break the graph each, and the number of the step, which decides the draws,
    has it compiled anew at every step.
    """
    disable: Any = torch.compiler.disable
    return disable(function)


def is_compiled(model: nn.Module) -> bool:
    """Whether a model shows that torch.compile is on it or on a part: around it, in place, or by Lightning."""
    marks = ("_orig_mod", "_compiled_call_impl", "_compiler_ctx")
    return any(getattr(module, mark, None) is not None for module in model.modules() for mark in marks)


def _forget_compiled() -> None:
    if "torch._dynamo" in sys.modules:  # else nothing has been compiled
        torch.compiler.reset()
