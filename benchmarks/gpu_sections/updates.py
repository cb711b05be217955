"""Weights of models whose updates are timed, and an update that can be made again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from resnet50 import resnet50_weights
from stairs import Stairs
from torch import nn

from gpu_sections.tools import Where
from lightning_prune import Pruner

BEFORE, AFTER = 0.5, 0.6


def gpt_weights(width: int = 1024, blocks: int = 24, vocab: int = 50257) -> nn.ModuleList:
    """Return the layers of a GPT of 354 million weights, 302 million of them prunable. It has no forward."""
    torch.manual_seed(0)
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    return nn.ModuleList([nn.Embedding(vocab, width), *(nn.Linear(*shape) for _ in range(blocks) for shape in shapes)])


def small_layers(layers: int = 1000, width: int = 16) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(layers)])


def models(where: Where) -> Mapping[str, Callable[[], nn.ModuleList]]:
    if where.small:
        return {"GPT, width 32": lambda: gpt_weights(32, 2, 100), "30 layers of 16 x 16": lambda: small_layers(30)}
    sizes = {"ResNet-50": resnet50_weights, "1,000 layers of 16 x 16": small_layers}
    return sizes if where.device.type == "cpu" else {"ResNet-50": resnet50_weights, "GPT 350M": gpt_weights, **sizes}


class Update:
    """One update from half to six tenths."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.pruner = model, Pruner(Stairs((BEFORE, AFTER)))
        self.pruner.attach(model)
        self.pruner.update(0)
        self.state = self.pruner.state_dict()
        self.before = [parameter.detach().clone() for parameter in model.parameters()]

    def prepare(self) -> None:
        """Go back to the masks and weights before."""
        with torch.no_grad():
            for parameter, before in zip(self.model.parameters(), self.before, strict=True):
                parameter.copy_(before)
        self.pruner.load_state_dict(self.state)

    def run(self) -> None:
        assert self.pruner.update(1)

    @property
    def size(self) -> int:
        return sum(weight.mask.numel() for weight in self.pruner.masks.values())
