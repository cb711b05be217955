"""Random weights and gradients, and the scores that a criterion gives them."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers import criterion_at

SHAPES = [(1, 1), (4, 3), (1, 9), (5, 2, 3, 3), (3, 4, 5)]


def weight_and_grad(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return weight, grad


def scored(criterion: Any, weight: Tensor, grad: Tensor | None, **site: Any) -> Tensor:
    """Return the scores of a weight with a norm behind it."""
    return criterion_at(criterion, **site, norm=torch.linspace(-1.0, 0.5, len(weight)))(weight, grad)


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    return layer
