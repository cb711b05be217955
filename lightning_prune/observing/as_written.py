"""Sums over training are worked out in the types that they have, also inside of autocast."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor


@contextmanager
def as_written(tensor: Tensor) -> Generator[None, None, None]:
    """Turn autocast off for a while, on the CPU and where a tensor lies: it makes products of float32 bfloat16."""
    with ExitStack() as stack:
        for kind in {"cpu", tensor.device.type}:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
