"""Magnitude times how large the inputs are that the weight multiplies: Wanda."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled, remembered, wide


@dataclass(frozen=True)
class Wanda:
    """Score a weight by |w| ||x||_2, with x all the values that it has multiplied in the observed steps.

    The paper compares the weights of one output with each other alone; scopes here compare layers or whole models, so
    of layers with large inputs more stays under `GlobalRanking`: use `Uniform` to have it as the paper does by layer.
    Source: Sun et al. 2024 (arXiv 2306.11695), eq. 1; convolutions by their patches.

    Args:
        window: how many steps before each update are looked at; None for all.
        memory: of one weight, set by the pruner: a double for each of its inputs and kernel positions.
        name: of the weight, set by the pruner.

    Raises:
        ValueError: the window is no number of steps; called before anything was seen, with the weight's name.
    """

    window: int | None = 4
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "squared input"
    needs_layout: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_window(self.window)

    def at(self, site: Site) -> Wanda:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the sums of squares over examples and positions, (groups, inputs, *kernel)."""
        return {"squares": doubled(seen).flatten(1 + weight.dim()).sum(-1)[0]}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return |w| ||x||."""
        norms = remembered(self.memory, "squares", self.name).sqrt().to(wide(weight))
        by_groups = wide(weight).abs().unflatten(0, (len(norms), -1))
        return (by_groups * norms[:, None]).view(weight.shape)
