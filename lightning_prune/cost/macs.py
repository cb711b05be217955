"""How many multiply-adds a forward makes, by layer: torch's flop counter, and what it misses."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune.coupling.example import call


def macs(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Return the multiply-adds of each module without those of its submodules."""
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, int] = {}
    stack: list[tuple[int, int]] = []  # of each running module: operations before it, and inside its submodules

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        stack.append((counter.get_total_flops(), 0))

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before, inside = stack.pop()
        flops = counter.get_total_flops() - before
        if stack:
            stack[-1] = (stack[-1][0], stack[-1][1] + flops)
        # The fused kernels of recurrent layers are not counted, and the others are: the formula stands for both.
        own = _recurrent(module, args, kwargs) if isinstance(module, nn.RNNBase) else (flops - inside) // 2
        found[names[module]] = found.get(names[module], 0) + own

    hooks = [module.register_forward_pre_hook(enter, prepend=True) for module in names]
    hooks += [module.register_forward_hook(leave, with_kwargs=True) for module in names]
    try:
        with evaluation(model), _frozen(model), unfused(), torch.no_grad(), counter:
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _recurrent(layer: nn.RNNBase, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Each entry of each matrix is used once for every time step of every sequence."""
    sequence = args[0] if args else kwargs["input"]
    if isinstance(sequence, nn.utils.rnn.PackedSequence):
        sequence = sequence.data
    matrices = [weight for weights in layer.all_weights for weight in weights if weight.dim() == 2]
    return sequence.numel() // layer.input_size * sum(matrix.numel() for matrix in matrices)


def _formulas() -> dict[Any, Any]:
    """Operations of products that torch's counter has no formula for."""

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

    def vector(matrix: Any, *_: Any, **__: Any) -> int:
        return 2 * math.prod(matrix)

    aten = torch.ops.aten
    return {aten._scaled_dot_product_flash_attention_for_cpu: attention, aten.mv: vector, aten.dot: vector}


@contextmanager
def _frozen(model: nn.Module) -> Generator[None, None, None]:
    """Freeze a model for a while: the counter wants a gradient function of all that requires gradients.

    A view of a parameter, such as a class token spread over a batch, requires gradients without grad mode too, and has
    no function there.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def unfused() -> Generator[None, None, None]:
    """Switch off the fused encoder layer, which the counter does not see into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def evaluation(*models: nn.Module) -> Generator[None, None, None]:
    """Set models to evaluation mode for a while."""
    before = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
