"""What a reconstruction must answer, what it is asked with, and the least squares that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Observed, doubled, remembered, wide

_CHUNK = 1 << 24
"""Values of patches that are written out at a time."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads the units of a group.

    Attributes:
        name: dotted name of its weight.
        weight: outputs, inputs, kernel.
        units: (units, n), the inputs that are each unit's: one of a convolution, several behind a flattened map.
        memory: what was summed up of what it reads.
    """

    name: str
    weight: Tensor
    units: Tensor
    memory: Mapping[str, Tensor]


@runtime_checkable
class Reconstruction(Protocol):
    """Which weights stay, and what they become. It observes as a `criterion.ObservingCriterion` does.

    One of single weights is asked as a criterion is, through `at(site)` and `__call__(weight, grad)`.
    """

    observes: ClassVar[Observed]
    """What of a layer is summed up: "input", what its weight multiplies."""

    @property
    def window(self) -> int | None:
        """Over how many optimizer steps before each update; None for all, from the first step on."""
        ...

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the sums of what a forward shows, (examples, groups, inputs, *kernel, *positions), by key."""
        ...

    def at(self, site: Any) -> Any:
        """Return the one to ask for a weight, with its memory."""
        ...

    def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
        """Return a weight, its outputs first, with new values where `keep` is true; what is elsewhere is ignored."""
        ...


@runtime_checkable
class UnitReconstruction(Protocol):
    """A reconstruction of whole units: it is asked for a group at a time, and corrects the weights that read it."""

    def worth(self, readers: Sequence[Reader]) -> Tensor:
        """Return what each unit is worth, (units,), in float64 and finite; a unit that is worth more is kept longer."""
        ...


def check_damping(damping: float) -> None:
    """Raise ValueError unless a damping is above 0."""
    given.number("damping", damping, above=0)


def moment_of(seen: Tensor, arranged: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sums of x x^T over examples and positions, (groups, d, d), in float32 or wider.

    Args:
        seen: examples first.
        arranged: from some examples to (examples, groups, d, positions); it may copy.
    """
    total: Tensor | None = None
    for some in chunks(seen):
        x = wide(arranged(some)).permute(1, 2, 0, 3).flatten(2)
        part = x @ x.transpose(1, 2)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def chunks(seen: Tensor) -> Sequence[Tensor]:
    """Return what is seen some examples at a time: patches are views until they are written out."""
    return seen.split(max(1, _CHUNK // max(1, seen.shape[1:].numel())))


def columns_of(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Return how to arrange what is seen of a layer by the columns of its weight, inputs times kernel."""
    return lambda seen: seen.flatten(2, weight.dim()).flatten(3)


def summed(memory: Mapping[str, Tensor], name: str) -> Tensor:
    """Return the second moment of what a weight multiplies, (groups, d, d), in float64.

    Raises:
        ValueError: nothing was seen, or it is not finite; the message names the weight.
    """
    moment = doubled(remembered(memory, "moment", name))
    if not bool(torch.isfinite(moment).all()):
        raise ValueError(f"what '{name}' reads is not finite: the layers before it overflow, or its input does")
    return moment


def damped(moment: Tensor, damping: float) -> Tensor:
    """Return moments with a share of their diagonals' mean added to the diagonals; 1 where all is zero."""
    mean = moment.diagonal(dim1=-2, dim2=-1).mean()
    added = torch.where(mean > 0, damping * mean, 1.0)
    return moment + added * torch.eye(moment.shape[-1], dtype=moment.dtype, device=moment.device)


def rebuilt_from(rows: Tensor, moment: Tensor, stay: Tensor, damping: float) -> Tensor:
    """Return what to add to the kept columns of rows, so that rows times x is nearest to what it was with all.

    It minimises ||r x - (r_stay + a) x_stay||^2 + d ||a||^2 over a = r_gone M_gone,stay (M_stay,stay + d)^-1, so it is
    never farther than with nothing added.

    Args:
        rows: (groups, rows, d).
        moment: of x, (groups, d, d).
        stay: (d,) bool, which columns stay.
        damping: d, as a share of the mean of the moment's diagonal.

    Returns:
        (groups, rows, how many stay).
    """
    within = damped(moment, damping)[:, stay][:, :, stay]
    pull = rows[:, :, ~stay] @ moment[:, ~stay][:, :, stay]
    return torch.cholesky_solve(pull.transpose(1, 2), torch.linalg.cholesky(within)).transpose(1, 2)


def contributions(weight: Tensor, moment: Tensor) -> Tensor:
    """Return the inner products of what a layer's inputs add to its outputs, (inputs, inputs).

    G_ij = sum over outputs, examples and positions of what inputs i and j add. In a layer in groups an input is that
    place of every group.

    Args:
        weight: outputs, inputs, kernel, in float64.
        moment: of its columns, (groups, inputs * kernel, inputs * kernel).
    """
    rows = weight.flatten(1).unflatten(0, (moment.shape[0], -1))
    inputs = weight.shape[1]
    products = (moment * (rows.transpose(1, 2) @ rows)).sum(0)
    return products.view(inputs, -1, inputs, products.shape[0] // inputs).sum((1, 3))


def products_of_units(readers: Sequence[Reader]) -> Tensor:
    """Return the inner products of what units add to all that reads them, (units, units), on the CPU in float64.

    Raises:
        ValueError: nothing was seen of a layer, or it is not finite; the message names the weight.
    """
    found: list[Tensor] = []
    for reader in readers:
        products = contributions(doubled(reader.weight), summed(reader.memory, reader.name)).cpu()
        units = reader.units.cpu()
        rows = products[units.flatten()].unflatten(0, tuple(units.shape)).sum(1)
        found.append(rows[:, units.flatten()].unflatten(1, tuple(units.shape)).sum(2))
    return torch.stack(found).sum(0)
