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
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved
from lightning_prune.masks import MaskedWeight, checksums, mend
from lightning_prune.ranking import count_nonzero, counts
from lightning_prune.shards import Shard, each, gathered

Shards = Mapping[str, Shard | None]
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
    alive = count_nonzero([weights[name].values.detach() for name in masked])
    alive = each(alive, [weights[name].shard for name in masked])
    shards = {name: weight.shard for name, weight in weights.items()}
    saved_masks = described({name: weight.mask for name, weight in weights.items()}, pruned, shards)
    for name, number in zip(masked, alive, strict=True):
        weight = weights[name]
        if number + weight.pruned < weight.size:
            saved_masks[name]["kept_zeros"] = _positions((weight.values.detach() == 0) & weight.mask, weight.shard)
    return saved_masks


def _positions(flags: Tensor, shard: Shard | None) -> Tensor:
    """Return where the true entries of all ranks lie in the whole, in order."""
    if shard is None:
        return flags.reshape(-1).nonzero().reshape(-1).cpu()
    return gathered(shard.positions(flags), shard).cpu().sort().values


def described(
    masks: Mapping[str, Tensor], pruned: Mapping[str, int] | None = None, shards: Shards = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """Return shape, count and checksum of masks; `pruned` where counts are known, `shards` where they are pieces."""
    wholes = [shards.get(name) for name in masks]
    shapes = [mask.shape if shard is None else shard.shape for mask, shard in zip(masks.values(), wholes, strict=True)]
    if pruned is None:
        kept = each(counts(masks.values()), wholes)
        pruned = {name: shape.numel() - few for name, shape, few in zip(masks, shapes, kept, strict=True)}
    return {
        name: {"shape": list(shape), "pruned": pruned[name], "checksum": checksum}
        for name, shape, checksum in zip(masks, shapes, checksums(masks.values(), wholes), strict=True)
    }


def from_weights(
    state: Mapping[str, Any], parameters: Mapping[str, Tensor], shards: Shards = MappingProxyType({})
) -> dict[str, Tensor]:
    """Return the masks of a state that was checked, bool in the shapes of the weights, on their devices.

    Args:
        state: of this version, or of version 1.
        parameters: the weights that were saved beside it, by the names that the state has; or the pieces that lie here.
        shards: of which wholes they are pieces; of those that are.

    Raises:
        ValueError: the zeros of the weights are not those of the state; the message names them.
    """
    if state["version"] == 1:
        masks = {name: state["masks"][name].to(parameter.device) for name, parameter in parameters.items()}
        return {name: _piece(mask, shards.get(name)) for name, mask in masks.items()}
    masks = {name: _read(state["masks"][name], p.detach(), shards.get(name)) for name, p in parameters.items()}
    other = differing(state, masks, shards)
    if other:
        name, zeros = next(iter(other.items()))
        more = f" and {len(other) - 1} more weights" if len(other) > 1 else ""
        raise ValueError(
            f"the pruning state was saved beside other weights: '{name}' has {zeros:,} zeros that are pruned, the "
            f"state {state['masks'][name]['pruned']:,}, or they lie elsewhere{more}. Masks are read off the zeros: "
            "load the weights that were saved with the state into the model first, then the state"
        )
    return masks


def _piece(mask: Tensor, shard: Shard | None) -> Tensor:
    return mask if shard is None else shard.piece(mask).contiguous()


def _read(entry: Mapping[str, Any], parameter: Tensor, shard: Shard | None) -> Tensor:
    if not entry["pruned"]:
        return torch.ones_like(parameter, dtype=torch.bool)
    mask = parameter != 0
    zeros = entry.get("kept_zeros")
    if zeros is not None and len(zeros) and shard is not None:
        mask |= shard.within(zeros.to(mask.device))
    elif zeros is not None and len(zeros):
        flat = mask.reshape(-1)
        flat[zeros.to(mask.device)] = True
        mask = flat.view(mask.shape)
    return mask


def differing(
    state: Mapping[str, Any], masks: Mapping[str, Tensor], shards: Shards = MappingProxyType({})
) -> dict[str, int]:
    """Return which masks have not the count and checksum that a state of this version has, and what they prune."""
    found = described(masks, shards=shards)
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
