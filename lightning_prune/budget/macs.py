"""The multiply-adds of a forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_prune import given
from lightning_prune.budget.protocol import Price
from lightning_prune.cost.macs import macs
from lightning_prune.coupling.example import example_of
from lightning_prune.targets import plain_name


@dataclass(frozen=True)
class MACs:
    """The sparsity is the share of multiply-adds that goes, of all that a forward on the example inputs makes.

    They are counted in one forward, and fall with the outputs and inputs that a layer has left: `Polynomial(0.5, ...)`
    halves them. All of the model count, those of layers that are left whole as well. The products inside attention are
    taken to fall as its projections do. For `pattern=Channel()`: a single zero saves none.

    Args:
        by_cost: rank units by their worth for each multiply-add that goes with them. So more go from layers that see
            large images, and fewer weights in all.
    """

    by_cost: bool = False

    def __post_init__(self) -> None:
        given.flag("by_cost", self.by_cost)

    def price(self, model: nn.Module, example_inputs: Any, shapes: Mapping[str, tuple[int, ...]]) -> Price:
        """Return the multiply-adds of a forward, and those of one entry of each weight.

        Raises:
            ValueError: there are no example inputs.
        """
        found = {plain_name(name): number for name, number in macs(model, example_of(model, example_inputs)).items()}
        modules = {plain_name(name): module for name, module in model.named_modules()}
        each: dict[str, float] = {}
        for name, module in modules.items():
            matrices = _matrices(name, module)
            size = sum(matrices.values())
            if found.get(name):  # else it was not called: whoever takes its weights counts them
                each |= {matrix: found[name] / size for matrix in matrices if matrix in shapes}
        return Price("MACs", float(sum(found.values())), each, dict(shapes))


def _matrices(name: str, module: nn.Module) -> dict[str, int]:
    """Return what a module multiplies by in its own forward, by name, with its size."""
    inside = f"{name}." if name else ""
    found = {inside + own: p.numel() for own, p in module.named_parameters(recurse=False) if p.dim() > 1}
    if isinstance(module, nn.MultiheadAttention):  # it takes the weight out of this one, and does not call it
        found[f"{inside}out_proj.weight"] = module.out_proj.weight.numel()
    return found
