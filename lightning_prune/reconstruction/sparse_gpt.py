"""Single weights by optimal brain surgery on the layer's output, column by column: SparseGPT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled
from lightning_prune.reconstruction.protocol import check_damping, columns_of, damped, moment_of, summed


@dataclass(frozen=True)
class SparseGPT:
    """Score weights by what their removal does to the layer's output, and make up for those that go in later columns.

    With H the sum of x x^T over what the layer reads and U the upper Cholesky factor of its inverse, a weight of
    column j is worth w_j^2 / U_jj^2, the least squared error of the output that its removal leaves when the columns
    behind j make up for it. The columns are gone through in order: of each weight that goes, w_j / U_jj * U_j,j: is
    taken from its row. The first pass, for the scores, takes from each block of columns the share that the schedule
    asks for; which weights go, scope, selection and pattern decide, and the second pass corrects for those. The paper
    prunes each layer by the same share: `scope=Uniform()`. For patterns of weights; convolutions by their patches.
    Source: Frantar & Alistarh 2023 (arXiv 2301.00774).

    Args:
        block: columns that are scored together in the first pass, before what they lose is carried on.
        damping: what is added to the diagonal of H, as a share of the diagonal's mean.
        window: how many steps before each update are looked at; None for all.
        memory: of one weight, set by the pruner: d^2 floats with d inputs times kernel, for each group of the layer.
        name: of the weight, set by the pruner.
        sparsity: the share of weights to go, set by the pruner.

    Raises:
        ValueError: an argument is out of range; called before anything was seen, with the weight's name.
    """

    block: int = 128
    damping: float = 0.01
    window: int | None = 16
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)
    sparsity: float = field(default=0.0, repr=False)

    observes: ClassVar[Observed] = "input"
    needs_layout: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_window(self.window)
        check_damping(self.damping)
        given.whole("block", self.block, 1)

    def at(self, site: Site) -> SparseGPT:
        """Return the one to ask for that weight."""
        return replace(self, memory=site.memory, name=site.name, sparsity=site.sparsity)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return x x^T of the columns of the weight, (groups, d, d), and how many examples there are."""
        moment = moment_of(seen, columns_of(weight))
        return {"moment": moment, "count": moment.new_tensor(len(seen))}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return w^2 / U_jj^2 at the time when a weight's block is reached, for the mean of an example."""
        factor = self._factor()
        rows = self._rows(weight)
        scores = torch.empty_like(rows)

        def choose(start: int, end: int, now: Tensor) -> Tensor:
            worth = now.square() / factor.diagonal(dim1=1, dim2=2)[:, None, start:end].square()
            scores[:, :, start:end] = worth
            least = worth.flatten().topk(round(self.sparsity * worth.numel()), largest=False).indices
            return torch.ones_like(worth).flatten().index_fill_(0, least, 0.0).view_as(worth)

        _go_through(rows, factor, self.block, choose)
        scores /= doubled(self.memory["count"]).clamp(min=1)
        return scores.view(weight.shape).to(weight.device, torch.promote_types(weight.dtype, torch.float32))

    def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
        """Return the weight with what makes up, in later columns, for the entries that are not kept."""
        rows = self._rows(weight)
        stay = keep.flatten(1).unflatten(0, (rows.shape[0], -1)).to(rows)
        _go_through(rows, self._factor(), self.block, lambda start, end, now: stay[:, :, start:end])
        return rows.view(weight.shape).to(weight)

    def _rows(self, weight: Tensor) -> Tensor:
        groups = summed(self.memory, self.name).shape[0]
        return doubled(weight).flatten(1).unflatten(0, (groups, -1)).clone()

    def _factor(self) -> Tensor:
        """Return U with U^T U = (H + damping)^-1, (groups, d, d)."""
        lower = torch.linalg.cholesky(damped(summed(self.memory, self.name), self.damping))
        return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def _go_through(rows: Tensor, factor: Tensor, block: int, stays: Callable[[int, int, Tensor], Tensor]) -> None:
    """Zero in place, column by column, the entries that do not stay, and have later columns make up for them.

    Args:
        rows: (groups, rows, columns).
        factor: (groups, columns, columns), upper triangular.
        block: columns for which `stays` is asked at a time.
        stays: from the first column of a block, the one behind it and its entries to 1 where they stay and 0 elsewhere.
    """
    for start in range(0, rows.shape[2], block):
        end = min(start + block, rows.shape[2])
        stay = stays(start, end, rows[:, :, start:end])
        errors = torch.zeros_like(rows[:, :, start:end])
        for column in range(start, end):
            gone = rows[:, :, column] * (1.0 - stay[:, :, column - start]) / factor[:, column, column, None]
            errors[:, :, column - start] = gone
            rows[:, :, column:end] -= gone[:, :, None] * factor[:, column, None, column:end]
        rows[:, :, start:end] *= stay
        rows[:, :, end:] -= errors @ factor[:, start:end, end:]
