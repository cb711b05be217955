"""What a pattern must answer: one whose units lie in one weight, one that differs by weight, one across the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lightning_prune.coupling.units import Coupling


@dataclass(frozen=True)
class Tiles:
    """How units tile a weight.

    Attributes:
        view: the shape in which the weight is seen: dimensions that follow each other may be one.
        sizes: how many entries a tile has along each dimension of that. Those at the end may be cut off.
    """

    view: tuple[int, ...]
    sizes: tuple[int, ...]


class Pattern(Protocol):
    """What lives and dies together. Tensors come with the output dimension first and the input dimension second.

    Each expert of a stack comes by itself. Unless a pattern is `single`, weights of which no layer, no
    `Targets(layout=...)` and no forward on example inputs says which dimension is which are refused.
    """

    @property
    def single(self) -> bool:
        """Whether every weight is a unit of its own and none is protected."""
        ...

    @property
    def least_sparsity(self) -> float:
        """The smallest final sparsity, other than 0, at which the pattern holds."""
        ...

    def units(self, scores: Tensor) -> Tensor:
        """Return one score per unit, from one score per weight."""
        ...

    def protected(self, units: Tensor) -> Tensor | None:
        """Return, in the units' shape, which units go only after all others of the pool; None if all are equal."""
        ...

    def weights_per_unit(self, shape: torch.Size) -> int | Tensor:
        """Return how many weights a unit holds: one int for all, or an int64 tensor in the units' shape."""
        ...

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """Return the bool mask of `shape` for the units kept."""
        ...


@runtime_checkable
class TiledPattern(Pattern, Protocol):
    """A pattern whose units are tiles.

    Of a weight that is taken apart over ranks, each makes the units of its piece, where the borders of pieces cut no
    tile; other weights are collected. A pattern with a true `entries` has an entry as unit, and tiles are what
    `protected` looks at; one with a true `spares` protects the best unit of a weight and no other; and one with a true
    `means` has the bits of the whole on the CPU alone, and has weights on devices collected.
    """

    def tiles(self, shape: torch.Size) -> Tiles:
        """Return how the units of a whole weight of this shape tile it."""
        ...

    def pooled(self, scores: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return one score per tile of a piece, of any shape, in order; the same bits as those of the whole.

        Args:
            scores: one a weight, with the dimensions of `view` and at least one entry.
            sizes: of the tiles, with which the piece begins.
        """
        ...


@runtime_checkable
class SitedPattern(Protocol):
    """A pattern that differs by weight: `at(name)` gives the one for the weight of that dotted name."""

    def at(self, name: str) -> Pattern: ...


@runtime_checkable
class CoupledPattern(Protocol):
    """A pattern whose units are slices of many weights: `couple(model)` finds them, once, when pruning starts.

    If it has a true `readers`, units are scored by the weights that read them as well; a criterion that has a true
    `of_outputs` gives each weight its output's score, and is refused beside that.
    """

    @property
    def multiple(self) -> int:
        """Each group keeps a multiple of so many units, where it has as many."""
        ...

    @property
    def normalize(self) -> bool:
        """Whether scores are divided by their group's mean before groups are ranked together."""
        ...

    @property
    def example_inputs(self) -> Any:
        """What one forward takes; None for the module's `example_input_array`."""
        ...

    def couple(self, model: nn.Module) -> Coupling:
        """Return the groups of units that can be removed. Raises ValueError if the model cannot be traced."""
        ...
