"""The scale of a norm, whose place saliency takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_prune.dynamic.gate import ChannelGate

Scale = tuple[Tensor, Tensor | None] | None
"""Scale and bias of a norm as they were; None where it has none."""


@torch.no_grad()
def take_over(norm: Any, gate: ChannelGate) -> Scale:
    """Have a gate's b begin as |γ|, the size of a norm's scale, which becomes its sign; return what they were.

    The norm's bias is divided by |γ|, so that where W s(x) is 0 the layer computes what it did. A γ of 0, which some
    networks begin with, counts as 1.
    """
    if norm.weight is None:
        return None
    before = norm.weight.clone(), None if norm.bias is None else norm.bias.clone()
    size = torch.where(norm.weight == 0, 1.0, norm.weight.abs())
    gate.bias.copy_(size)
    norm.weight.copy_(torch.where(norm.weight < 0, -1.0, 1.0))
    if norm.bias is not None:
        norm.bias.div_(size)
    return before


@torch.no_grad()
def give_back(norm: Any, scale: Scale) -> None:
    """Put scale and bias back into a norm."""
    if scale is not None:
        norm.weight.copy_(scale[0])
        if scale[1] is not None:
            norm.bias.copy_(scale[1])
