"""A clock that counts: an operation takes as long as tensors go into it and come out of it, in values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode  # pyright: ignore[reportPrivateImportUsage]

from lightning_prune.cost import layer_times
from lightning_prune.coupling.example import call, tensors


class _Values(TorchDispatchMode):
    """Counts the values that operations read and write; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.number += sum(tensor.numel() for tensor in tensors([args, kwargs or {}, result]))
        return result


def counted_ms(run: Callable[[], object]) -> float:
    """Return the milliseconds of a call: a microsecond a value."""
    with _Values() as values:
        run()
    return 1e-3 * values.number


def of_forward(model: nn.Module, inputs: Any) -> float:
    """Return the milliseconds of a forward in evaluation mode."""
    model = model.eval()
    with torch.inference_mode():
        return counted_ms(lambda: call(model, inputs))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have layers timed by that clock, and attention by its operations alone, not by torch's fused one."""
    monkeypatch.setattr(layer_times, "least_ms", lambda run, device: counted_ms(run))
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)
