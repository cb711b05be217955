"""Example inputs: how a model is called on them, and how two of its answers are told apart."""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.full_precision import full_precision
from lightning_prune.coupling.training import mode


def example_of(model: nn.Module, given: Any = None) -> Any:
    """Return the example inputs, given or the module's `example_input_array`, on the model's device and in its dtype.

    Raises:
        ValueError: there are none.
    """
    found = given if given is not None else getattr(model, "example_input_array", None)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} has no example inputs to trace its graph with: set self.example_input_array in "
            "the module, or pass example_inputs"
        )
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return _to(found, parameter.device, parameter.dtype)


def copy_of(model: nn.Module) -> nn.Module:
    """Return a deep copy, also of a module that has kept a result of its last forward: torch copies none with a graph.

    In the copy such a result has none.
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError:
        kept = [t for module in model.modules() for t in tensors(dict(vars(module))) if t.grad_fn is not None]
        if not kept:
            raise
        return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in kept})


def in_full(model: nn.Module, example_inputs: Any) -> tuple[nn.Module, Any]:
    """Return model and inputs for comparing outputs: themselves, or in float32 where rounding is too coarse."""
    if not any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):
        return model, example_inputs
    return copy_of(model).float(), _to(example_inputs, None, torch.float32)


@contextmanager
def own_randomness() -> Generator[None, None, None]:
    """Leave the random generators of torch, numpy and Python as they were, whatever happens inside.

    `torch.manual_seed` sets those of all devices, so it is all that have one in use.
    """
    numpy = sys.modules.get("numpy")
    before = random.getstate(), numpy.random.get_state() if numpy is not None else None
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    xpu = torch.xpu.get_rng_state_all() if torch.xpu.is_available() else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        if mps is not None:
            torch.mps.set_rng_state(mps)
        if xpu is not None:
            torch.xpu.set_rng_state_all(xpu)
        random.setstate(before[0])
        if numpy is not None:
            numpy.random.set_state(before[1])


def call(model: nn.Module, example_inputs: Any) -> Any:
    """Call the model: a dict gives keyword arguments, a tuple or list positional ones, anything else the only one."""
    if isinstance(example_inputs, Mapping):
        return model(**example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return model(*example_inputs)
    return model(example_inputs)


def tensors(value: Any) -> Iterator[Tensor]:
    """Iterate over the tensors of an answer, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)
    elif dataclasses.is_dataclass(value):
        for entry in dataclasses.fields(value):
            yield from tensors(getattr(value, entry.name))


def examples_in(inputs: Any) -> int:
    """Return how many examples a forward has: the first dimension of its first tensor."""
    first = next((tensor for tensor in tensors(inputs) if tensor.dim()), None)
    return 1 if first is None else first.shape[0]


def with_batch(inputs: Any, number: int) -> Any:
    """Return example inputs with so many examples, those there are over and over, in every tensor that holds them."""
    there = examples_in(inputs)

    def resized(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[torch.arange(number) % there] if value.dim() and value.shape[0] == there else value
        if isinstance(value, Mapping):
            return {key: resized(part) for key, part in value.items()}
        return type(value)(resized(part) for part in value) if isinstance(value, (tuple, list)) else value

    return resized(inputs)


@torch.no_grad()
def answer(model: nn.Module, example_inputs: Any, training: bool = False) -> list[Tensor]:
    """Return the tensors that the model gives, from the same random state each time and in full precision.

    Args:
        model: any module; it stays in the mode it is in.
        example_inputs: what one forward takes.
        training: by the ways that are taken in training mode, without dropout; else in evaluation mode.
    """
    with own_randomness(), mode(model, training), full_precision(model):
        torch.manual_seed(0)
        return [t.detach().clone() for t in tensors(call(model, example_inputs))]


def distance(one: list[Tensor], other: list[Tensor]) -> tuple[float, float]:
    """Return the largest difference between two answers, and the same as a share of the larger value.

    Raises:
        ValueError: they differ in shape.
    """
    shapes = [[tuple(t.shape) for t in answer] for answer in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the outputs have shapes {shapes[1]}, not {shapes[0]}")
    largest = relative = 0.0
    for a, b in zip(one, other, strict=True):
        if not a.numel():
            continue
        if not a.is_floating_point():
            a, b = a.cpu().double(), b.cpu().double()  # MPS has no doubles
        finite = torch.isfinite(a)
        if not torch.equal(finite, torch.isfinite(b)):
            return float("inf"), float("inf")
        if not finite.any():
            continue
        difference = float((a - b)[finite].abs().max())
        largest = max(largest, difference)
        relative = max(relative, difference / max(float(a[finite].abs().max()), 1e-12))
    return largest, relative


def _to(value: Any, device: torch.device | None, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, Mapping):
        return {key: _to(part, device, dtype) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_to(part, device, dtype) for part in value)
    return value
