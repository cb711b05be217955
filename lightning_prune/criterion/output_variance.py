"""How much an output differs from example to example."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune.criterion.protocol import (
    Observed,
    Site,
    check_window,
    doubled,
    of_each_weight,
    variances,
    wide,
)


@dataclass(frozen=True)
class OutputVariance:
    """Score an output by the variance over examples of ||W * x||_F, the norm of its map, before bias and activation.

    One that is as large whatever the input is can be made up for by a bias. Source: Polyak & Wolf 2015 ("Channel-level
    acceleration of deep face representations"), reduce and reuse.

    Args:
        window: how many steps before each update are looked at; None for all.
        memory: of one weight, set by the pruner: two doubles an output.
        name: of the weight, set by the pruner.

    Raises:
        ValueError: the window is no number of steps; called before anything was seen, with the weight's name.
    """

    window: int | None = 10
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "output"
    of_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_window(self.window)

    def at(self, site: Site) -> OutputVariance:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the sums over examples of the norms and their squares, (outputs,), and how many there are."""
        squares = doubled(seen).square().sum(2)
        return {"norms": squares.sqrt().sum(0), "squares": squares.sum(0), "count": squares.new_tensor(len(seen))}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return the variances, one for each weight of an output."""
        return of_each_weight(variances(self.memory, self.name).to(wide(weight)), weight)
