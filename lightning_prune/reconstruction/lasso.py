"""Units that a LASSO on what they add to a layer leaves, and new weights for what reads them: channel pruning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune.criterion.protocol import Observed, Site, check_window, doubled
from lightning_prune.reconstruction.protocol import (
    Reader,
    check_damping,
    columns_of,
    damped,
    moment_of,
    products_of_units,
    rebuilt_from,
    summed,
)


@dataclass(frozen=True)
class Lasso:
    """Score a unit by the penalty at which its factor in a LASSO becomes zero, and fit the weights that read it again.

    The LASSO is min 1/2N ||Y - sum_i b_i X_i W_i||^2 + l ||b||_1 with Y what a layer gives without its bias, X_i W_i
    what unit i adds to it, and N examples; of several layers that read, all count. Raising l until as many factors are
    left as units are to stay gives the units whose scores are highest: the whole path of l is followed once, by least
    angles. The weights of what stays are then those of least squares on Y. For `pattern=Channel()`; needs scikit-learn.
    Source: He et al. 2017 (channel pruning, arXiv 1707.06168), eq. 2 and 4.

    Args:
        damping: what is added to the diagonals, as a share of their mean: it draws fitted weights to what they were.
        window: how many steps before each update are looked at; None for all.
        memory: of one layer that reads, set by the pruner: d^2 floats with d inputs times kernel, for each group.
        name: of its weight, set by the pruner.

    Raises:
        ValueError: an argument is out of range; asked before anything was seen, with the weight's name.
        ModuleNotFoundError: scikit-learn is not installed.
    """

    damping: float = 0.01
    window: int | None = 16
    memory: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    name: str = field(default="", repr=False)

    observes: ClassVar[Observed] = "input"

    def __post_init__(self) -> None:
        check_window(self.window)
        check_damping(self.damping)
        if find_spec("sklearn") is None:
            raise ModuleNotFoundError(
                "Lasso needs scikit-learn: pip install 'lightning-prune[structured]'", name="sklearn"
            )

    def at(self, site: Site) -> Lasso:
        """Return the one to ask for that weight."""
        return replace(self, memory=site.memory, name=site.name)

    def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Return x x^T of the columns of the weight, (groups, d, d), and how many examples there are."""
        moment = moment_of(seen, columns_of(weight))
        return {"moment": moment, "count": moment.new_tensor(len(seen))}

    def worth(self, readers: Sequence[Reader]) -> Tensor:
        """Return the largest l at which each unit's factor is not zero; 0 if it always is."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import lars_path_gram

        products = products_of_units(readers)
        examples = max(1, max(int(reader.memory["count"]) for reader in readers))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the path ends where units add the same
            penalties, _, factors = lars_path_gram(
                products.sum(1).numpy(),
                damped(products, self.damping).numpy(),
                n_samples=examples,
                method="lasso",
                max_iter=8 * len(products),
            )
        alive = torch.from_numpy(factors) != 0  # (units, knots of the path)
        first = alive.int().argmax(1)
        entered = torch.from_numpy(penalties)[(first - 1).clamp(min=0)]
        return torch.where(alive.any(1), entered, 0.0)

    def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
        """Return the weight with the columns that stay fitted to what all gave."""
        moment = summed(self.memory, self.name)
        rows = doubled(weight).flatten(1).unflatten(0, (moment.shape[0], -1)).clone()
        stay = keep.flatten(1).any(0)
        rows[:, :, stay] += rebuilt_from(rows, moment, stay, self.damping)
        return rows.view(weight.shape).to(weight)
