"""The predictor beside a layer: how salient each of its output channels is for an example, and which of them win."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def winners(saliency: Tensor, kept: Tensor) -> Tensor:
    """Return which channels of each example are among its `kept` most salient: of equals the first.

    Args:
        saliency: (examples, channels).
        kept: how many win, an int tensor of one element: nothing waits for its value.

    Returns:
        Bools of the same shape, exactly `kept` of them true in each row.
    """
    order = saliency.detach().argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) < kept


def pooled(x: Tensor) -> Tensor:
    """Return the mean magnitude of each channel of each example: (examples, channels, ...) -> (examples, channels)."""
    return x.abs().flatten(2).mean(2)


class ChannelGate(nn.Module):
    """Multiply a layer's normalised channels by their saliency, and all but the most salient ones by 0.

    The saliency is g(x) = relu(W s(x) + b), where s(x) is the mean magnitude of each channel that the layer reads.
    Source: feature boosting and suppression, Gao et al., ICLR 2019.

    Args:
        inputs: how many channels the layer reads.
        outputs: how many it computes; all win at first.
        like: a tensor whose device and dtype the parameters get, float32 at least.

    Attributes:
        weight: W, (outputs, inputs).
        bias: b, (outputs,).
        kept: how many channels win, an int64 scalar; a buffer, so that files hold it.
        strength: by what the mean of g is multiplied in the loss, None outside of training.
        level: the mean of g in the latest forward of training, None before.
    """

    kept: Tensor

    def __init__(self, inputs: int, outputs: int, like: Tensor) -> None:
        super().__init__()
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, device=like.device, dtype=dtype))
        self.bias = nn.Parameter(torch.ones(outputs, device=like.device, dtype=dtype))
        self.register_buffer("kept", torch.tensor(outputs, device=like.device))
        self.strength: Tensor | None = None
        self.level: Tensor | None = None

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Draw W anew as Kaiming does; b is 1."""
        noise = torch.randn(self.weight.shape, generator=torch.Generator().manual_seed(seed))
        self.weight.copy_(noise * math.sqrt(2.0 / self.weight.shape[1]))
        self.bias.fill_(1.0)

    def forward(self, x: Tensor, training: bool = False) -> Tensor:
        """Return by what the layer's channels are multiplied, (examples, outputs).

        Args:
            x: what the layer reads, (examples, inputs, ...).
            training: whether the penalty acts.
        """
        with torch.autocast(x.device.type, enabled=False):
            means = pooled(x).to(self.weight.dtype)
            saliency = F.relu(F.linear(means, self.weight, self.bias))
            if training and self.strength is not None:
                self.level = saliency.detach().mean()
                saliency = _Penalised.apply(saliency, self.strength)
            return saliency * winners(saliency, self.kept).to(saliency.dtype)

    def extra_repr(self) -> str:
        """Return what is shown of it."""
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class _Penalised(torch.autograd.Function):
    """The identity, which adds the gradient of strength * mean(g) on the way back: no loss has to know of it."""

    @staticmethod
    def forward(ctx: Any, saliency: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(saliency, strength)
        return saliency.view_as(saliency)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saliency, strength = ctx.saved_tensors
        return grads[0] + saliency.sign() * (strength / saliency.numel()), None
