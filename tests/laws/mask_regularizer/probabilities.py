"""Probabilities that take a gradient."""

import torch
from hypothesis import strategies as st
from torch import Tensor

P = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8)


def probabilities(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)
