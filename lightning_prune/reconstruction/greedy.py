"""Units in the order in which their going changes a layer's sums least, and factors for those that stay: ThiNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled
from lightning_prune.reconstruction.protocol import (
    Reader,
    check_damping,
    columns_of,
    contributions,
    moment_of,
    products_of_units,
    rebuilt_from,
    summed,
)


@dataclass(frozen=True)
class Greedy:
    """Let units go one by one, always the one that adds least to sum_i (sum_{j gone} x_ij)^2, and scale the others.

    x_ij is what unit j adds to sum i of a layer that reads it: an output at an example and position; of several layers
    that read, all sums count. The n-th that goes is worth n, so groups are compared by shares of their units. Each
    input of those layers that stays is then multiplied by the factor that brings the sums nearest to what they were,
    by least squares. For `pattern=Channel()`. Source: Luo et al. 2017 (ThiNet, arXiv 1707.06342), which takes some of
    the sums where all are taken here.

    Args:
        damping: what draws the factors to 1, as a share of the mean of what inputs add, squared.
        window: how many steps before each update are looked at; None for all.
        memory: of one layer that reads, set by the pruner: d^2 floats with d inputs times kernel, for each group.
        name: of its weight, set by the pruner.

    Raises:
        ValueError: an argument is out of range; asked before anything was seen, with the weight's name.
    """

    damping: float = 0.01
    window: int | None = 16
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "input"

    def __post_init__(self) -> None:
        check_window(self.window)
        check_damping(self.damping)

    def at(self, site: Site) -> Greedy:
        """Return the one to ask for that weight."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return x x^T of the columns of the weight, (groups, d, d)."""
        return {"moment": moment_of(seen, columns_of(weight))}

    def worth(self, readers: Sequence[Reader]) -> Tensor:
        """Return when each unit goes, 1 for the first."""
        products = products_of_units(readers)
        order = products.new_zeros(len(products))
        rise = products.diagonal().clone()
        for place in range(1, len(products) + 1):
            unit = int(rise.argmin())
            order[unit] = place
            rise += 2.0 * products[unit]
            rise[unit] = torch.inf
        return order

    def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
        """Return the weight with a factor for each input that stays."""
        outputs = keep.flatten(1).any(1)
        values = doubled(weight) * outputs.view(-1, *[1] * (weight.dim() - 1)).to(torch.float64)
        products = contributions(values, summed(self.memory, self.name))
        stay = keep.transpose(0, 1).flatten(1).any(1)
        factors = products.new_ones(len(stay))
        factors[stay] += rebuilt_from(products.new_ones(1, 1, len(stay)), products[None], stay, self.damping)[0, 0]
        return (doubled(weight) * factors.view(1, -1, *[1] * (weight.dim() - 2))).to(weight)
