"""Learned masks, put into the weights for good: in the model, or in copies of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.learned.masked_units import MaskedUnits
from lightning_prune.learned.masked_weights import MaskedWeights
from lightning_prune.masks import zero_
from lightning_prune.targets import plain_name


@torch.no_grad()
def harden(sites: MaskedUnits | MaskedWeights, settled: Sequence[Tensor], optimizers: Sequence[Optimizer] = ()) -> None:
    """Multiply weights by what their masks settled at, zero what the hard masks leave out, and its moments."""
    factors = sites.factors(settled)
    for name, weight in sites.masks.items():
        weight.parameter.copy_(_hard(sites, name, weight.parameter, factors))
        weight.write(weight.mask, float(weight.threshold))
        weight.apply_to_moments(optimizers)


@torch.no_grad()
def harden_copies(
    sites: MaskedUnits | MaskedWeights, factors: Callable[[str, Tensor], Mapping[str, Any]], saved: Any
) -> dict[str, Any]:
    """Replace tensors under the name and shape of a masked one by hard ones, wherever nested dicts hold them.

    What they hold may share the model's memory, so it is left as it is.

    Args:
        sites: where the masks are.
        factors: name of a masked tensor and a copy of it -> `sites.factors` for it.
        saved: the dicts.

    Returns:
        Dicts nested in the same way, with copies of the replaced tensors whose values are not the model's own.
    """
    names = {a: w.target.name for w in sites.masks.values() for a in w.target.names}

    def walk(at: dict[Any, Any]) -> dict[str, Any]:
        replaced: dict[str, Any] = {}
        for key, value in at.items():
            name = names.get(plain_name(key)) if isinstance(key, str) else None
            if isinstance(value, dict):
                inside = walk(value)
                replaced |= {key: inside} if inside else {}
            elif name and isinstance(value, Tensor) and value.shape == sites.masks[name].mask.shape:
                own = sites.masks[name].parameter
                if not torch.equal(value, own.to(value.device)):
                    replaced[key] = value.detach().clone()
                at[key] = _hard(sites, name, value, factors(name, value))
        return replaced

    return walk(saved) if isinstance(saved, dict) else {}


def _hard(sites: MaskedUnits | MaskedWeights, name: str, tensor: Tensor, factors: Mapping[str, Any]) -> Tensor:
    hard = sites.multiplied(name, tensor, factors)
    zero_(hard, sites.masks[name].mask.to(hard.device))
    return hard
