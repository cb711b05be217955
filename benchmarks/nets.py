"""The models whose training steps are timed, with a batch each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """One transformer block, pre-norm."""

    def __init__(self, width: int = 512, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def conv() -> nn.Module:
    def layer(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*layer(3, 32), *layer(32, 64), *layer(64, 128), nn.Flatten(), nn.Linear(128 * 16, 10))


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(2304, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10))


def deep() -> nn.Module:
    return nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(600)))


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "MLP 784-300-100-10, batch 128": (mlp, lambda: torch.randn(128, 784)),
    "dense layers 2304-4096-4096-10, batch 128": (dense, lambda: torch.randn(128, 2304)),
    "600 layers of 16 x 16, batch 8": (deep, lambda: torch.randn(8, 16)),
    "conv net, 3 layers, 32x32, batch 64": (conv, lambda: torch.randn(64, 3, 32, 32)),
    "transformer block, width 512, 16 x 128 tokens": (Block, lambda: torch.randn(16, 128, 512)),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "AdamW, fused": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True),
    "SGD, momentum": lambda model: torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9),
}
