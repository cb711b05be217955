"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import Site


@dataclass(frozen=True)
class Random:
    """Score weights at random, uniformly in [0, 1), from (seed, step, name) alone.

    The same on every rank and in every process; torch's global generators are neither read nor moved.

    Args:
        seed: any int.
        step: the update step, set by the pruner.
        name: the weight's name, set by the pruner.
    """

    seed: int = 0
    step: int = 0
    name: str = ""

    def at(self, site: Site) -> Random:
        """Return the criterion for that weight at that step."""
        return replace(self, step=site.step, name=site.name)

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return random scores in float32."""
        digest = hashlib.sha256(f"{self.seed}/{self.step}/{self.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        return torch.rand(weight.shape, generator=generator).to(weight.device, non_blocking=True)
