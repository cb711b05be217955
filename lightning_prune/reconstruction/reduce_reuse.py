"""Units that vary least go, and are rebuilt from those that stay, folded into what reads them: reduce and reuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled, variances
from lightning_prune.reconstruction.protocol import Reader, check_damping, chunks, moment_of, rebuilt_from, summed


@dataclass(frozen=True)
class ReduceReuse:
    """Score a unit by the variance over examples of the norm of its map, and rebuild maps that go from those that stay.

    The maps are what a layer reads, so behind norm and activation, each value as often as it is read; of several layers
    that read, the mean counts. With Y all maps and Y' those that stay, A = argmin sum ||Y_i - A Y'_i||^2 over examples
    and positions; as a 1x1 convolution it goes before the layer that reads, and is folded into its weight: nothing is
    added to the model. Cheaper than `Lasso` behind convolutions, as maps and not patches are multiplied. For
    `pattern=Channel()`. Source: Polyak & Wolf 2015 ("Channel-level acceleration of deep face representations").

    Args:
        damping: what draws the share of each map that stays in the others to 0, as a share of the mean squared map.
        window: how many steps before each update are looked at; None for all.
        memory: of one layer that reads, set by the pruner: d^2 floats and 2 d doubles with d inputs.
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

    def at(self, site: Site) -> ReduceReuse:
        """Return the one to ask for that weight."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return y y^T of the inputs, (1, inputs, inputs), sums of their maps' norms and squares, and how many."""
        others = [1, *range(3, seen.dim())]
        squares = torch.cat([doubled(some).square().sum(others) for some in chunks(seen)])
        return {
            "moment": moment_of(seen, lambda some: some.transpose(1, 2).flatten(2).unsqueeze(1)),
            "norms": squares.sqrt().sum(0),
            "squares": squares.sum(0),
            "count": squares.new_tensor(len(seen)),
        }

    def worth(self, readers: Sequence[Reader]) -> Tensor:
        """Return the variances of the units' norms; of a unit of several inputs the sum of theirs."""
        found: list[Tensor] = []
        for reader in readers:
            summed(reader.memory, reader.name)  # that there is something, and that it is finite
            found.append(doubled(variances(reader.memory, reader.name)).cpu()[reader.units.cpu()].sum(1))
        return torch.stack(found).mean(0)

    def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
        """Return the weight with A folded into the inputs that stay."""
        stay = keep.transpose(0, 1).flatten(1).any(1)
        values = doubled(weight).transpose(0, 1).flatten(1)  # inputs, outputs times kernel
        rows = values.transpose(0, 1)[None]
        values = values.clone()
        values[stay] += rebuilt_from(rows, summed(self.memory, self.name), stay, self.damping)[0].transpose(0, 1)
        shape = (weight.shape[1], weight.shape[0], *weight.shape[2:])
        return values.view(shape).transpose(0, 1).to(weight)
