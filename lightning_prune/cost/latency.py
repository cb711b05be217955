"""How long a forward takes: models in turn, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_prune.cost.macs import evaluation
from lightning_prune.coupling.example import call, example_of

_WARM_UP, _BLOCK = 3, 5


def latency(models: Sequence[nn.Module], example_inputs: Any = None, repeats: int = 30) -> list[float]:
    """Return the milliseconds that a forward of each model takes, in evaluation and inference mode.

    The models take turns in one process, so that whatever else the machine does meets all alike. It slows some turns
    down and speeds none up: of every five turns the median is taken, and of the medians the least.

    Args:
        models: any modules; each gets the example inputs on its own device.
        example_inputs: as for `count`.
        repeats: how many forwards of each are timed, after a few that are not.

    Raises:
        ValueError: `repeats` is below 1, or there are no example inputs.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    inputs = [example_of(model, example_inputs) for model in models]
    times: list[list[float]] = [[] for _ in models]
    turns = list(range(len(models)))
    with evaluation(*models), torch.inference_mode():
        for turn in range(_WARM_UP + repeats):
            for i in turns if turn % 2 else reversed(turns):
                wait(device_of(models[i]))
                start = time.perf_counter()
                call(models[i], inputs[i])
                wait(device_of(models[i]))
                times[i].append(1e3 * (time.perf_counter() - start))
    return [_least_median(each[_WARM_UP:]) for each in times]


def _least_median(times: list[float]) -> float:
    starts = range(0, max(len(times) - _BLOCK, 0) + 1, _BLOCK)  # what is left behind the last whole block is left out
    return min(statistics.median(times[start : start + _BLOCK]) for start in starts)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model is: where its first parameter is."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def described(device: torch.device) -> str:
    """Return the name of a device for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def wait(device: torch.device) -> None:
    """Wait for what was started on an accelerator."""
    if device.type in ("cpu", "meta"):
        return
    accelerator: Any = getattr(torch, "accelerator", None)  # torch 2.6
    current: Any = accelerator.current_accelerator() if accelerator is not None and accelerator.is_available() else None
    own: Any = getattr(torch, device.type, None)
    if accelerator is not None and current is not None and current.type == device.type:
        accelerator.synchronize(device)
    elif device.type == "cuda":
        torch.cuda.synchronize(device)
    elif hasattr(own, "synchronize"):
        own.synchronize()
