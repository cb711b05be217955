"""Random weights and gradients, and the scores that a criterion gives them."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.criterion import ObservingCriterion
from tests.helpers import criterion_at

SHAPES = [(1, 1), (4, 3), (1, 9), (5, 2, 3, 3), (3, 4, 5)]


def weight_and_grad(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return weight, grad


def scored(criterion: Any, weight: Tensor, grad: Tensor | None, **site: Any) -> Tensor:
    """Return the scores of a weight with a norm behind it, in training that has shown what the criterion looks at."""
    if isinstance(criterion, ObservingCriterion):
        memory = site.setdefault("memory", {})
        for key, sums in criterion.observe(weight, shown(criterion, weight, grad)).items():
            memory[key] = (
                sums
                if key not in memory
                else torch.cat([memory[key], sums])
                if _rows(criterion, key)
                else (memory[key] + sums)
            )
    return criterion_at(criterion, **site, norm=torch.linspace(-1.0, 0.5, len(weight)))(weight, grad)


def shown(criterion: ObservingCriterion, weight: Tensor, grad: Tensor | None) -> Tensor:
    """Return what there is to see of a weight: its gradient, or five examples of what its layer, or a reader, gets."""
    if criterion.observes == "gradient":
        return torch.zeros_like(weight) if grad is None else grad
    inputs = {"input": (5, 1, *weight.shape[1:], 2), "squared input": (1, 1, *weight.shape[1:], 2)}
    shape = inputs.get(criterion.observes, (5, len(weight), 3))
    generator = torch.Generator().manual_seed(len(weight))
    return torch.randn(shape, generator=generator).relu().to(weight.dtype)


def _rows(criterion: ObservingCriterion, key: str) -> bool:
    return key in getattr(criterion, "rows", ())


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight)
    return layer
