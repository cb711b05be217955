"""How much the loss is expected to rise if the other weights make up for it: OBS, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from lightning_prune import given
from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled, remembered, wide

_BLOCKS = 1 << 14
"""Blocks that are inverted at a time."""
_FEW = 8
"""Gradients that are kept before they become a matrix, where a window is longer than a block."""


@dataclass(frozen=True)
class OBS:
    """Score a weight by w^2 / (2 [F^-1]_kk), and correct those that stay for those that go.

    F is the mean of g g^T over the observed steps, the empirical Fisher, between weights of one block alone: so many
    that lie beside each other in the weight, outputs first. When an update's masks are known, the weights that stay in
    a block take the values that minimise d^T F d / 2 with the others at zero: d_stay = F_stay,stay^-1 F_stay,go w_go;
    for a single weight that goes it is Hassibi's -w_k / [F^-1]_kk F^-1 e_k. Scores are of single weights. Sources:
    Hassibi & Stork 1993 (Optimal Brain Surgeon); Kurtic et al. 2022 (oBERT, arXiv 2203.07259), which inverts by
    rank-one updates what is solved for here, in as many unknowns as there are steps where these are few.

    Args:
        block: weights a block.
        damping: what is added to the diagonal of F, as a share of the diagonal's mean over the weight.
        window: how many steps before each update are looked at; None for all.
        memory: of one weight, set by the pruner: a float a weight and observed step while the window is no longer than
            a block, so 128 bytes at 32; F costs a step more than the gradients that it is made of. Beyond, F, of
            `block` floats a weight, and up to 8 gradients.
        name: of the weight, set by the pruner.

    Raises:
        ValueError: an argument is out of range; called before anything was seen, with the weight's name.
    """

    block: int = 32
    damping: float = 0.01
    window: int | None = 32
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "gradient"
    by_step: ClassVar[tuple[str, ...]] = ("gradient",)

    def __post_init__(self) -> None:
        check_window(self.window)
        given.whole("block", self.block, 1)
        given.number("damping", self.damping, above=0)

    def at(self, site: Site) -> OBS:
        """Return the criterion with that weight's memory."""
        return replace(self, memory=site.memory, name=site.name)

    @property
    def most_steps(self) -> int:
        """How many gradients are kept before they become F: all of the window, where they take no more room."""
        few = self.window is not None and self.window <= self.block
        return self.window if few and self.window is not None else min(_FEW, self.block)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return the gradient by blocks, (blocks, block), and 1."""
        blocks = self._blocks(wide(seen))
        own = blocks.clone() if blocks.data_ptr() == seen.data_ptr() else blocks
        return {"gradient": own, "count": blocks.new_ones(())}

    def folded(self, seen: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the sum over steps of g g^T of each block, (blocks, block, block)."""
        rows = torch.stack([step["gradient"] for step in seen], 1)
        return {"fisher": rows.mT @ rows}

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return w^2 / (2 [F^-1]_kk)."""
        blocks = self._blocks(wide(weight))
        scores = torch.empty_like(blocks)
        for some, fisher in self._fishers():
            scores[some] = blocks[some].square() / (2.0 * fisher.inverse_diagonal())
        return scores.flatten()[: weight.numel()].view(weight.shape)

    def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
        """Return the weight with what makes up for the entries that are not kept."""
        blocks, stay = self._blocks(wide(weight)).clone(), self._blocks(keep.to(wide(weight).dtype))
        for some, fisher in self._fishers():
            kept, gone = stay[some], blocks[some] * (1.0 - stay[some])
            blocks[some] = (blocks[some] + fisher.made_up(kept, gone)) * kept
        return blocks.flatten()[: weight.numel()].view(weight.shape).to(weight.dtype)

    def _blocks(self, tensor: Tensor) -> Tensor:
        flat, missing = tensor.flatten(), -tensor.numel() % self.block
        return (functional.pad(flat, (0, missing)) if missing else flat).view(-1, self.block)

    def _fishers(self) -> Iterator[tuple[slice, _Matrices | _Gradients]]:
        count = remembered(self.memory, "count", self.name)
        sums = self.memory.get("fisher")
        steps = [kept for key, kept in self.memory.items() if key.partition("/")[0] == "gradient"]
        first = steps[0] if sums is None else sums
        squares = sum(step.square().sum() for step in steps)
        total = squares if sums is None else squares + sums.diagonal(dim1=1, dim2=2).sum()
        mean = total / (len(first) * self.block * count)
        added = torch.where(mean > 0, self.damping * mean, 1.0).to(first)
        for start in range(0, len(first), _BLOCKS):
            some = slice(start, start + _BLOCKS)
            seen = [{"gradient": step[some]} for step in steps]
            if sums is None and 2 * len(steps) <= self.block:
                yield some, _Gradients(torch.stack([step["gradient"] for step in seen], 1) / count.sqrt(), added)
                continue
            fisher = first.new_zeros(()) if sums is None else sums[some]
            fisher = fisher + self.folded(seen)["fisher"] if seen else fisher
            yield some, _Matrices(fisher / count + added * _identity(self.block, first))


@dataclass(frozen=True)
class _Matrices:
    """F as it is, (blocks, block, block)."""

    fisher: Tensor

    def inverse_diagonal(self) -> Tensor:
        """Return the diagonals of the inverses, (blocks, block)."""
        return _found(torch.linalg.inv_ex(self.fisher)).diagonal(dim1=1, dim2=2)

    def made_up(self, kept: Tensor, gone: Tensor) -> Tensor:
        """Return by how much what is kept moves, 0 elsewhere.

        Args:
            kept: 1 for the entries that stay, 0 for the others.
            gone: the values of the others, 0 for those that stay.
        """
        pull = kept * torch.einsum("bij,bj->bi", self.fisher, gone)
        # rows and columns of what goes are those of the identity: the system of what stays is left
        system = self.fisher * kept[:, :, None] * kept[:, None, :] + torch.diag_embed(1.0 - kept)
        return _found(torch.linalg.solve_ex(system, pull))


@dataclass(frozen=True)
class _Gradients:
    """F = R^T R + added I, by the few rows of R, (blocks, rows, block): solved in as many unknowns as there are rows.

    In double precision, as 1 - R (..)^-1 R^T is a difference of like numbers.
    """

    rows: Tensor
    added: Tensor

    def inverse_diagonal(self) -> Tensor:
        """Return what `_Matrices` does, by Woodbury's identity."""
        rows = doubled(self.rows)
        halves = torch.linalg.solve_triangular(_found(torch.linalg.cholesky_ex(self._small(rows))), rows, upper=False)
        return ((1.0 - halves.square().sum(1)) / self.added.to(rows)).to(self.rows)

    def made_up(self, kept: Tensor, gone: Tensor) -> Tensor:
        """Return what `_Matrices` does: (R^T R + a I)^-1 R^T = R^T (R R^T + a I)^-1."""
        rows = doubled(self.rows)
        pull = torch.einsum("bmj,bj->bm", rows, gone.to(rows))
        rows = rows * kept.to(rows)[:, None, :]
        return torch.einsum("bmj,bm->bj", rows, _found(torch.linalg.solve_ex(self._small(rows), pull))).to(self.rows)

    def _small(self, rows: Tensor) -> Tensor:
        return rows @ rows.mT + self.added.to(rows) * _identity(rows.shape[1], rows)


def _identity(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)


def _found(answer: tuple[Tensor, Tensor]) -> Tensor:
    """Return what was found of each block, not a number where nothing was: to ask would wait for a device.

    A score, or a new value, that is not finite ends the update, and names the weight.
    """
    found, failed = answer
    return found.masked_fill(failed.ne(0).view(-1, *(1 for _ in found.shape[1:])), torch.nan)
