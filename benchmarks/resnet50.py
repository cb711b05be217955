"""A model with ResNet-50's prunable weights, 53 convolutions and one linear layer: 25.5 million. It has no forward."""

from __future__ import annotations

import torch
from torch import nn


def resnet50_weights(seed: int = 0) -> nn.ModuleList:
    """Return the layers in order, with their default initial weights."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, bias=False)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            layers += [
                nn.Conv2d(channels, width, 1, bias=False),
                nn.Conv2d(width, width, 3, bias=False),
                nn.Conv2d(width, 4 * width, 1, bias=False),
            ]
            if block == 0:
                layers.append(nn.Conv2d(channels, 4 * width, 1, bias=False))
            channels = 4 * width
    return nn.ModuleList([*layers, nn.Linear(channels, 1000)])
