"""One architecture: how to build it, what it takes, and what must be found in it or left whole and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def images(batch: int = 2, size: int = 8) -> Tensor:
    return torch.randn(batch, 3, size, size)


def tokens(batch: int = 2, length: int = 6) -> Tensor:
    return torch.randint(0, 11, (batch, length))


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        build: makes it, with random weights.
        example: makes the example inputs.
        others: other inputs that it takes.
        found: the first weight of every group that must be found -> other weights that must be in it.
        refused: weights that must stay whole -> what the reason says.
        frozen: beginnings of the names of parameters that do not train.
    """

    build: Callable[[], nn.Module]
    example: Callable[[], Any]
    others: tuple[Callable[[], Any], ...]
    found: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    frozen: tuple[str, ...] = ()

    def model(self) -> nn.Module:
        """Return it with statistics in its norms that are no longer 0 and 1."""
        torch.manual_seed(0)
        model = self.build()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):  # small, or little is left of what comes in
                buffer.copy_(0.1 * torch.randn_like(buffer))
            if name.endswith("running_var"):
                buffer.copy_(0.1 * torch.rand_like(buffer) + 0.05)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen or ("no such",)))
        return model.eval()


OUTPUT, NORMALISES = "model's output", "normalises over its channels"
ANY_SIZE = (lambda: images(5), lambda: images(1, 12))
ANY_LENGTH = (lambda: tokens(5), lambda: tokens(1, 9))
OTHER_BATCH = (lambda: images(5),)
