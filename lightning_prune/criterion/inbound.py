"""How much what a filter takes from one input channel differs from example to example."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled, variances, wide

_AT_A_TIME = 1 << 18
"""Norms that are worked out at a time, or values that are looked at: so few that they stay in a core's cache."""


@dataclass(frozen=True)
class Inbound:
    """Score a link, the kernel between an input channel s and an output t, by the variance of ||W_ts * X_s||_F.

    The variance is over examples; all entries of a kernel have its score, and `pattern=Kernel()` takes links as wholes.
    In linear layers a link is a weight. Source: Polyak & Wolf 2015 ("Channel-level acceleration of deep face
    representations"), inbound pruning.

    Args:
        window: how many steps before each update are looked at; None for all.
        memory: of one weight, set by the pruner: two doubles a link; in layers without kernels two an input.
        name: of the weight, set by the pruner.

    Raises:
        ValueError: the window is no number of steps; called before anything was seen, with the weight's name.
    """

    window: int | None = 4
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "input"
    needs_layout: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_window(self.window)

    def at(self, site: Site) -> Inbound:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the sums over examples of the links' norms and their squares, and how many examples there are.

        (groups, 1, inputs) where a link is one weight: the norms are |w| times those. Else (groups, outputs, inputs).
        """
        kernel = weight[0, 0].numel()
        if weight.dim() <= 2 or kernel == 1:
            squares = doubled(seen).flatten(3).square().sum(3)[:, :, None]
            return _sums(squares.sqrt().sum(0), squares.sum(0), len(seen))
        links = doubled(weight.detach()).flatten(2).unflatten(0, (seen.shape[1], -1))
        # ||W * X||^2 = w^T (sum over positions of x x^T) w, and that matrix has the same numbers on either side
        row, column = torch.triu_indices(kernel, kernel, device=links.device)
        pairs = links[..., row] * links[..., column] * torch.where(row == column, 1.0, 2.0).to(links)
        norms, squares = (links.new_zeros(links.shape[:3]) for _ in range(2))
        for some in seen.split(max(1, _AT_A_TIME // max(1, links[..., 0].numel(), seen[:1].numel()))):
            patches = doubled(some.contiguous()).flatten(3, weight.dim()).flatten(4)
            grams = (patches @ patches.mT)[..., row, column]
            each = torch.einsum("gtsp,ngsp->ngts", pairs, grams).clamp(min=0.0)
            squares += each.sum(0)
            norms += each.sqrt_().sum(0)
        return _sums(norms, squares, len(seen))

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the variances, one for each weight of a link."""
        found = variances(self.memory, self.name).to(wide(weight))
        links = wide(weight).unflatten(0, (len(found), -1))
        spread = found.view(*found.shape, *[1] * (weight.dim() - 2))
        scores = links.square() * spread if weight[0, 0].numel() == 1 else spread.expand_as(links)
        return scores.reshape(weight.shape)


def _sums(norms: Tensor, squares: Tensor, examples: int) -> dict[str, Tensor]:
    return {"norms": norms, "squares": squares, "count": norms.new_tensor(examples)}
