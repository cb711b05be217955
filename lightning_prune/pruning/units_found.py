"""The units of a coupled pattern in a model that is taken apart over ranks: they are found while it is whole."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_prune.budget import Budget, MeasuredBudget, Price
from lightning_prune.coupling.units import Coupling
from lightning_prune.pattern import CoupledPattern
from lightning_prune.shards import is_plain
from lightning_prune.targets import plain_name


class UnitsFound:
    """The groups of units of one model, as they were found before it was taken apart.

    Args:
        model: the model, whole. It is not kept alive.
        pattern: finds them.
        budget: what their sparsity is a share of: what the model costs is seen in a forward of the whole, too.

    Raises:
        ValueError: there are no example inputs, the model does not run on them, or it would have to be measured.
    """

    def __init__(self, model: nn.Module, pattern: CoupledPattern, budget: Budget) -> None:
        self._model: weakref.ref[nn.Module] | None = weakref.ref(model)
        if isinstance(budget, MeasuredBudget) and (not budget.is_measured or getattr(budget, "speedup", None)):
            raise ValueError(
                f"budget={budget} measures a whole model, and this one is about to be taken apart over ranks: measure "
                "a table before, by lightning_prune.cost.measure_latency, and give it as Latency(table=...) without "
                "speedup; or prune under DDP"
            )
        self.coupling = pattern.couple(model)
        shapes = {plain_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self.price = budget.price(model, pattern.example_inputs, shapes)

    def are_of(self, model: nn.Module) -> bool:
        """Return whether they are those of this very model: another one of the same shapes may be wired otherwise."""
        return self._model is not None and self._model() is model

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are of no model: it has a copy of its own, if any."""
        return vars(self) | {"_model": None}


def coupling_of(pattern: Any, model: nn.Module, found: UnitsFound | None) -> Coupling | None:
    """Return the groups of units of a model; None where the pattern is of single weights.

    Raises:
        ValueError: the model is taken apart, and its units were not found before; the message names a weight.
    """
    if not isinstance(pattern, CoupledPattern):
        return None
    apart = next((name for name, parameter in model.named_parameters() if not is_plain(parameter)), None)
    if apart is None:
        return pattern.couple(model)
    if found is None or not found.are_of(model):
        raise ValueError(
            f"'{apart}' is taken apart over ranks, and pattern={pattern} finds units in whole weights: make the layers "
            "in __init__, with values, and take them apart in configure_model; without Lightning call "
            "Pruner.find_units(model) before. Or prune under DDP, or use a pattern of single weights"
        )
    return found.coupling


def price_of(
    budget: Budget, pattern: CoupledPattern, model: nn.Module, found: UnitsFound | None, shapes: Mapping[str, Any]
) -> Price | None:
    """Return what a model costs, as it was found before it was taken apart, or as it is."""
    if found is not None and not all(is_plain(parameter) for parameter in model.parameters()):
        return found.price
    return budget.price(model, pattern.example_inputs, shapes)
