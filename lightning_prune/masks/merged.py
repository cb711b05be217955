"""Zeros of a base weight that outlive an adapter: merged entries are zero again where the base was pruned.

The product of LoRA's matrices is dense, so merging it into a pruned base weight fills its zeros. Masked, the merged
weight is as sparse as the base was, and the adapter's part is kept everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lightning_prune.masks.zeros import zero_
from lightning_prune.ranking import count
from lightning_prune.targets import plain_name


def zeros_of(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return masks that the zeros of parameters show: bool in the parameter's shape, false where it is zero.

    Args:
        model: a model with pruned weights, before adapters are merged into them.
        names: of the parameters, such as `(weight.name for weight in pruner.report().weights)`.

    Raises:
        ValueError: the model has no parameter of a name.
    """
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters(remove_duplicate=False)}
    wanted = list(names)
    missing = [name for name in wanted if name not in parameters]
    if missing:
        raise ValueError(f"{type(model).__name__} has no parameter {missing[0]!r}: take masks before the merge")
    return {name: parameters[name].detach() != 0 for name in wanted}


def mask_merged(merged: nn.Module, masks: Mapping[str, Tensor]) -> int:
    """Set entries of merged weights to zero where the masks of their base weights are false.

    A weight is found by its base's name without what PEFT puts into it, `base_model.model` and `base_layer`; the merged
    model may lie in another module, such as a LightningModule.

    Args:
        merged: the model with adapters merged, `peft_model.merge_and_unload()` for one.
        masks: bool in the weights' shapes, by the base weights' names; from `zeros_of`.

    Returns:
        How many entries were not zero before.

    Raises:
        ValueError: a mask finds no weight of its name and shape, or more than one; nothing is changed then.
    """
    named = {_base_name(name): p for name, p in merged.named_parameters(remove_duplicate=False)}
    found = [(_weight_of(name, mask, named), mask) for name, mask in masks.items()]
    filled = 0
    with torch.no_grad():
        for weight, mask in found:
            mask = mask.to(weight.device)
            filled += count((weight.detach() != 0) & ~mask)
            zero_(weight, mask)
    return filled


def _base_name(name: str) -> str:
    """Return the name that a weight has without PEFT's modules around it."""
    return plain_name(name).rpartition("base_model.model.")[2].replace("base_layer.", "")


def _weight_of(name: str, mask: Tensor, named: Mapping[str, nn.Parameter]) -> nn.Parameter:
    base = _base_name(name)
    alike = [base] if base in named else [other for other in named if other.endswith(f".{base}")]
    if len(alike) != 1:
        known = f"{len(alike)} weights, {', '.join(alike[:3])}," if alike else "no weight"
        raise ValueError(f"the mask of '{name}' fits {known} of the merged model: give it the weight's name there")
    weight = named[alike[0]]
    if weight.shape != mask.shape:
        raise ValueError(
            f"the mask of '{name}' has shape {tuple(mask.shape)}, the merged weight '{alike[0]}' {tuple(weight.shape)}"
        )
    return weight
