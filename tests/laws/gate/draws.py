"""Logits and uniform draws for gates."""

import torch
from hypothesis import strategies as st
from torch import Tensor

LOGITS = st.lists(st.floats(-2, 2), min_size=1, max_size=6)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
