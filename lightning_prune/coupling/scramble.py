"""Other weights for a trial: drawn at random, so that none which happens to be zero hides a mistake."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer
from lightning_prune.coupling.layers import layer_of
from lightning_prune.coupling.units import tensors_of


@torch.no_grad()
def scramble(model: nn.Module, seed: int = 0) -> None:
    """Draw all weights anew, in place, for outputs of about the size of the inputs in each layer."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors_of(model).items():
        if not tensor.is_floating_point():
            continue
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1:
            drawn *= math.sqrt(2.0 / max(1, tensor[0].numel()))
        elif isinstance(tensor, nn.Parameter):
            drawn = drawn * 0.2 + (0.0 if name.endswith("bias") or "bias_" in name else 1.0)
        elif name.endswith("running_var"):
            drawn = drawn.abs() * 0.2 + 0.8
        elif name.endswith("running_mean"):  # small: a large one leaves nothing of what comes in, nor of a mistake
            drawn = drawn * 0.2
        else:
            continue
        tensor.copy_(drawn.to(tensor))


def level(model: nn.Module, example_inputs: Any) -> None:
    """Divide the weights of each layer, in place, by the spread of its outputs, which is 1 after that.

    A stream to which every block adds grows by the same each time then, where it would double, and the branches of the
    last blocks are not lost beside it.
    """
    done: set[nn.Module] = set()

    def divide(layer: nn.Module, inputs: Any, output: Any) -> Any:
        if layer in done or not isinstance(output, Tensor) or output.numel() < 2:
            return output
        done.add(layer)
        spread = output.std()
        if not bool(spread.isfinite()) or float(spread) < 1e-6:
            return output
        for tensor in (layer.weight, getattr(layer, "bias", None)):
            if isinstance(tensor, Tensor):
                tensor.div_(spread)
        return output / spread

    layers = [m for m in model.modules() if layer_of(m) is not None and not isinstance(m, nn.RNNBase)]
    hooks = [m.register_forward_hook(divide) for m in layers if getattr(m, "weight", torch.empty(0)).dim() > 1]
    try:
        answer(model, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
