"""Hooks beside torch.compile: compiled code has those that there were when it was made, and looks for no others."""

from __future__ import annotations

import sys

import torch
from torch import nn


def is_compiled(model: nn.Module) -> bool:
    """Whether a model shows that torch.compile is on it or on a part: around it, in place, or by Lightning."""
    marks = ("_orig_mod", "_compiled_call_impl", "_compiler_ctx")
    return any(getattr(module, mark, None) is not None for module in model.modules() for mark in marks)


def forget_compiled() -> None:
    """Have what was compiled in this process made anew when it is called next."""
    if "torch._dynamo" in sys.modules:  # else nothing has been compiled
        torch.compiler.reset()
