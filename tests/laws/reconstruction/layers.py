"""Layers with inputs that hang together, what reconstructions see of them, and what is left of their outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.criterion import Site
from lightning_prune.observing import inputs_of
from lightning_prune.reconstruction import Reader

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 6), (60, 8)),
    "linear over a sequence": (lambda: nn.Linear(8, 5, bias=False), (20, 4, 8)),
    "conv": (lambda: nn.Conv2d(8, 6, (3, 2), padding=1), (9, 8, 6, 5)),
    "strided": (lambda: nn.Conv1d(8, 4, 3, stride=2), (12, 8, 15)),
    "in groups": (lambda: nn.Conv1d(16, 6, 3, groups=2, padding=1), (12, 16, 9)),
    "transposed": (lambda: nn.ConvTranspose1d(8, 5, 3, stride=2), (12, 8, 9)),
}
"""Each has 8 inputs."""


def layer_and_input(name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Tensor]:
    """Return a layer, and an input whose channels can be told from each other in part."""
    make, shape = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer = make()
        x, channel = torch.randn(shape), 1 if len(shape) > 2 and "sequence" not in name else -1
    x = x + 0.8 * x.roll(1, channel) + 0.5 * x.roll(3, channel)
    return layer.to(dtype), x.relu().to(dtype)


def canonical(layer: Any, tensor: Tensor) -> Tensor:
    """Return a tensor of the weight's shape with outputs first; its own inverse."""
    return tensor.transpose(0, 1) if getattr(layer, "transposed", False) else tensor


def at(reconstruction: Any, layer: Any, *inputs: Tensor, sparsity: float = 0.5) -> Any:
    """Return the reconstruction to ask for a layer that has read these inputs."""
    weight, memory = canonical(layer, layer.weight.detach()), dict[str, Tensor]()
    for x in inputs:
        for key, some in reconstruction.observe(weight, inputs_of(layer, x)).items():
            memory[key] = memory[key] + some if key in memory else some
    return reconstruction.at(Site("layer.weight", 5, memory, sparsity))


def reader(reconstruction: Any, layer: Any, *inputs: Tensor, units: Tensor | None = None) -> Reader:
    """Return a layer as one that reads units: each an input, unless said otherwise."""
    weight = canonical(layer, layer.weight.detach())
    units = torch.arange(weight.shape[1])[:, None] if units is None else units
    return Reader("layer.weight", weight, units, at(reconstruction, layer, *inputs).memory)


def chosen(reconstruction: Any, layer: Any, x: Tensor) -> Tensor:
    """Return a mask of half of a layer's weights, outputs first: the best single ones, or the best four inputs."""
    asked, weight = at(reconstruction, layer, x), canonical(layer, layer.weight.detach())
    if hasattr(reconstruction, "worth"):
        best = asked.worth([reader(reconstruction, layer, x)]).topk(4).indices
        return torch.zeros_like(weight, dtype=torch.bool).index_fill_(1, best, True)
    scores = asked(weight, None)
    best = scores.flatten().topk(scores.numel() // 2).indices
    return torch.zeros(scores.numel(), dtype=torch.bool).index_fill_(0, best, True).view_as(scores)


def output_of(layer: Any, weight: Tensor, x: Tensor) -> Tensor:
    """Return what a layer gives with another weight, outputs first."""
    return torch.func.functional_call(layer, {"weight": canonical(layer, weight)}, (x,)).detach()


def error(layer: Any, weight: Tensor, x: Tensor) -> float:
    """Return the squared error of a layer's output with another weight, as a share of the output's squares."""
    bias = getattr(layer, "bias", None)
    now, then = output_of(layer, weight, x), layer(x).detach()
    zero = output_of(layer, torch.zeros_like(weight), x) if bias is not None else torch.zeros_like(then)
    return float((now - then).square().sum() / (then - zero).square().sum())
