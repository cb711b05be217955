"""Masks in a saved state: a pruned entry is one that is zero in the weights that are saved beside it.

Of each weight the state has its `shape`, how many entries are `pruned`, a `checksum` of the mask, and, where kept
entries happen to be zero as well, their positions, `kept_zeros`: int64 numbers in the flattened weight, in order. The
masks are read off the weights when the state is restored, and compared with count and checksum: weights that are not
those beside which it was saved are refused. Nothing depends on where a weight lies, or on how many processes hold it.

Version 1 held each mask as a bool tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved
from lightning_prune.masks import MaskedWeight, checksums, mend
from lightning_prune.ranking import count_nonzero, counts

INT64 = 2**63


def to_save(weights: Mapping[str, MaskedWeight]) -> dict[str, dict[str, Any]]:
    """Return what a state says of masks that are in their weights.

    Pruned entries that something has written to since are set to zero first, so that weights and state go together.
    """
    for weight in weights.values():
        weight.come()
    mend(weights.values())
    pruned = {name: weight.pruned for name, weight in weights.items()}
    masked = [name for name, number in pruned.items() if number]  # what nothing is pruned of is kept, zeros and all
    alive = count_nonzero([weights[name].parameter.detach() for name in masked])
    saved_masks = described({name: weight.mask for name, weight in weights.items()}, pruned)
    for name, number in zip(masked, alive, strict=True):
        weight = weights[name]
        if number + weight.pruned < weight.mask.numel():
            zeros = (weight.parameter.detach() == 0) & weight.mask
            saved_masks[name]["kept_zeros"] = zeros.reshape(-1).nonzero().reshape(-1).cpu()
    return saved_masks


def described(masks: Mapping[str, Tensor], pruned: Mapping[str, int] | None = None) -> dict[str, dict[str, Any]]:
    """Return shape, count and checksum of masks; `pruned` where the counts are known."""
    if pruned is None:
        kept = dict(zip(masks, counts(masks.values()), strict=True))
        pruned = {name: mask.numel() - kept[name] for name, mask in masks.items()}
    return {
        name: {"shape": list(mask.shape), "pruned": pruned[name], "checksum": checksum}
        for (name, mask), checksum in zip(masks.items(), checksums(masks.values()), strict=True)
    }


def from_weights(state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks of a state that was checked, bool in the shapes of the weights, on their devices.

    Args:
        state: of this version, or of version 1.
        parameters: the weights that were saved beside it, by the names that the state has.

    Raises:
        ValueError: the zeros of the weights are not those of the state; the message names them.
    """
    if state["version"] == 1:
        return {name: state["masks"][name].to(parameter.device) for name, parameter in parameters.items()}
    masks = {name: _read(state["masks"][name], parameter.detach()) for name, parameter in parameters.items()}
    other = differing(state, masks)
    if other:
        name, zeros = next(iter(other.items()))
        more = f" and {len(other) - 1} more weights" if len(other) > 1 else ""
        raise ValueError(
            f"the pruning state was saved beside other weights: '{name}' has {zeros:,} zeros that are pruned, the "
            f"state {state['masks'][name]['pruned']:,}, or they lie elsewhere{more}. Masks are read off the zeros: "
            "load the weights that were saved with the state into the model first, then the state"
        )
    return masks


def _read(entry: Mapping[str, Any], parameter: Tensor) -> Tensor:
    if not entry["pruned"]:
        return torch.ones_like(parameter, dtype=torch.bool)
    mask = parameter != 0
    zeros = entry.get("kept_zeros")
    if zeros is not None and len(zeros):
        flat = mask.reshape(-1)
        flat[zeros.to(mask.device)] = True
        mask = flat.view(mask.shape)
    return mask


def differing(state: Mapping[str, Any], masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Return which masks have not the count and checksum that a state of this version has, and what they prune."""
    found = described(masks)
    keys = ("pruned", "checksum")
    return {n: m["pruned"] for n, m in found.items() if any(m[key] != state["masks"][n][key] for key in keys)}


def check_saved_masks(where: str, masks: Any) -> dict[str, tuple[int, ...]]:
    """Look at what a state says of masks, and return the shapes that it gives.

    Raises:
        ValueError: a field is missing, of another type or out of range; the message names its key.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, value in saved.mapping(where, masks).items():
        at = f"{where}[{name!r}]"
        entry = saved.mapping(at, value)
        shape = saved.sequence(f"{at}.shape", saved.at(at, entry, "shape"))
        found[name] = tuple(saved.integer(f"{at}.shape: a length", length) for length in shape)
        size = math.prod(found[name])
        pruned = saved.integer(f"{at}.pruned", saved.at(at, entry, "pruned"), 0, size)
        saved.integer(f"{at}.checksum", saved.at(at, entry, "checksum"), -INT64, INT64 - 1)
        if "kept_zeros" in entry:
            _check_positions(f"{at}.kept_zeros", entry["kept_zeros"], size, size - pruned)
    return found


def _check_positions(where: str, positions: Any, size: int, most: int) -> None:
    if not isinstance(positions, Tensor) or positions.dtype != torch.int64 or positions.dim() != 1:
        what = f"a tensor of {positions.dtype}" if isinstance(positions, Tensor) else f"a {type(positions).__name__}"
        raise ValueError(f"{where} is {what}; it must be an int64 tensor of one dimension")
    if positions.layout != torch.strided or positions.is_meta:
        raise ValueError(f"{where} must be a dense tensor with values")
    if len(positions) > most:
        raise ValueError(f"{where} has {len(positions)} positions, and {most} entries are kept")
    if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < size:
        raise ValueError(f"{where} has positions outside [0, {size}), the weight's")
    if bool((positions.diff() <= 0).any()):
        raise ValueError(f"{where} has positions twice, or not in order")
