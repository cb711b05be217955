"""Weights that belong to no layer, stacks of experts among them, with random values."""

import torch
from torch import Tensor, nn

SIZES = {"expert": 3, "out": 6, "in": 8, "kh": 3, "kw": 2}


class Bare(nn.Module):
    """A module that is one weight, of which no layer says what it is."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


class Experts(nn.Module):
    """Two stacks and a router: what a mixture of experts is made of."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(12, experts)
        self.up = nn.Parameter(torch.randn(experts, 12, 24))
        self.down = nn.Parameter(torch.randn(experts, 12, 24))


EXPERTS = {"^up$": "expert in out", "^down$": "expert out in"}


def dense(layout: str, seed: int = 0) -> Tensor:
    """Return a weight of that layout, some of whose outputs and inputs are larger than others."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn([SIZES[name] for name in layout.split()], generator=generator)
    for dim, size in enumerate(weight.shape):
        shape = [-1 if d == dim else 1 for d in range(weight.dim())]
        weight *= (torch.rand(size, generator=generator) + 0.5).view(shape)
    return weight


def outputs_first(layout: str, tensor: Tensor) -> Tensor:
    """Return experts, outputs, inputs, kernel, found by their names."""
    names = layout.split()
    kernel = [name for name in names if name[0] == "k"]
    return tensor.permute([names.index(n) for n in ("expert", "out", "in", *kernel) if n in names]).contiguous()
