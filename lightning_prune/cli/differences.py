"""Two sets of weights beside each other: what is zero in each, what came back, and how far the rest has moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.cli.errors import printable
from lightning_prune.report import columns, percent


@dataclass(frozen=True)
class Difference:
    """Of a tensor of both files, or of several together.

    Attributes:
        name: the tensor's.
        size: entries.
        zeros: in the first file, and in the second.
        both: entries that neither has zero.
        gone: entries that the second alone has zero.
        returned: entries that the first alone has zero.
        squares: of entries that neither has zero: the sum of squares in the first, and of their differences.
    """

    name: str
    size: int
    zeros: tuple[int, int]
    both: int
    gone: int
    returned: int
    squares: tuple[float, float]

    @property
    def sparsity(self) -> tuple[float, float]:
        """The shares of zeros."""
        return (self.zeros[0] / self.size, self.zeros[1] / self.size) if self.size else (0.0, 0.0)

    @property
    def jaccard(self) -> float:
        """How alike the masks are: entries that both keep, of those that one of them keeps; 1 where none keeps any."""
        either = self.both + self.gone + self.returned
        return self.both / either if either else 1.0

    @property
    def moved(self) -> float:
        """The norm of the change over the first file's norm, of entries that neither has zero; 0 without any."""
        before, change = self.squares
        return math.sqrt(change / before) if before else 0.0

    def facts(self) -> dict[str, object]:
        """Return all of it as plain values."""
        return {
            "name": self.name,
            "size": self.size,
            "zeros": list(self.zeros),
            "sparsity": list(self.sparsity),
            "jaccard": self.jaccard,
            "gone": self.gone,
            "returned": self.returned,
            "moved": self.moved,
        }

    def row(self) -> tuple[str, ...]:
        """Return the cells of a table."""
        one, other = self.sparsity
        counts = (f"{self.gone:,}", f"{self.returned:,}")
        return (printable(self.name), percent(one), percent(other), f"{self.jaccard:.4f}", *counts, f"{self.moved:.4f}")


def difference(name: str, a: Tensor, b: Tensor) -> Difference:
    """Return how two tensors of one shape differ."""
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    first, second = a.to(wide), b.to(wide)
    kept, keeps = first != 0, second != 0
    both = kept & keeps
    before, change = first[both], (second - first)[both]
    return Difference(
        name,
        a.numel(),
        (int((~kept).sum()), int((~keeps).sum())),
        int(both.sum()),
        int((kept & ~keeps).sum()),
        int((keeps & ~kept).sum()),
        (float(before.abs().square().sum()), float(change.abs().square().sum())),
    )


def together(name: str, parts: Sequence[Difference]) -> Difference:
    """Return several differences as one."""
    return Difference(
        name,
        sum(part.size for part in parts),
        (sum(part.zeros[0] for part in parts), sum(part.zeros[1] for part in parts)),
        sum(part.both for part in parts),
        sum(part.gone for part in parts),
        sum(part.returned for part in parts),
        (sum(part.squares[0] for part in parts), sum(part.squares[1] for part in parts)),
    )


@dataclass(frozen=True)
class Differences:
    """Of two files.

    Attributes:
        large: of the tensors of two or more dimensions that both have.
        small: of the others that both have.
        alone: why a tensor is not compared, by name.
    """

    large: tuple[Difference, ...]
    small: tuple[Difference, ...]
    alone: Mapping[str, str]

    @staticmethod
    def between(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Differences:
        """Return what there is between two sets of weights by name."""
        alone = {name: "only in the first" for name in a if name not in b}
        alone |= {name: "only in the second" for name in b if name not in a}
        alone |= {name: "of another shape" for name in a if name in b and a[name].shape != b[name].shape}
        shared = [difference(name, a[name], b[name]) for name in a if name not in alone]
        large = tuple(each for each in shared if a[each.name].dim() >= 2)
        return Differences(large, tuple(each for each in shared if a[each.name].dim() < 2), alone)

    def table(self) -> str:
        """Return a table for people."""
        rows = [("tensor", "sparsity", "then", "Jaccard", "gone", "returned", "moved")]
        rows += [each.row() for each in self.large]
        rows.append(together("of two or more dimensions", self.large).row())
        if self.small:
            rows.append(together(f"{len(self.small)} of fewer dimensions", self.small).row())
        return columns(rows, rules={1, len(self.large) + 1})

    def facts(self) -> dict[str, object]:
        """Return all of it as plain values."""
        return {
            "tensors": [each.facts() for each in (*self.large, *self.small)],
            "all": together("of two or more dimensions", self.large).facts(),
            "not_compared": dict(self.alone),
        }


def values_of(tensor: Tensor) -> Tensor:
    """Return a tensor's numbers as a dense one, whatever it is stored as."""
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.dequantize() if tensor.is_quantized else tensor
