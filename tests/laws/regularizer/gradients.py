"""A random weight, and the gradient that a regularizer gives it."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

THRESHOLDS = st.sampled_from([-0.5, 0.0, 0.1, 0.7, 3.0])


def draw_weight(seed: int, shape: tuple[int, ...] = (5, 6)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gradient(regularizer: Any, weight: Tensor, threshold: float) -> Tensor:
    return torch.autograd.grad(regularizer(weight, threshold), weight)[0]
