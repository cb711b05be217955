"""Which entries of which tensors were taken out, as plain values, and the same done to a larger state_dict."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.units import Group, alive_along, tensors_of
from lightning_prune.targets import plain_name

Positions = dict[str, dict[str, str]]
"""Tensor -> dimension -> positions along it, such as "0-3,7"."""


class StillAliveError(ValueError):
    """A state_dict of the larger model in which units that were taken out are not dead."""


@dataclass(frozen=True)
class Taken:
    """What was taken out of a model's tensors.

    Attributes:
        removed: all positions that are gone.
        zeros: those of them whose entries were all zero, which is why they could go; of parameters alone.
    """

    removed: Positions
    zeros: Positions

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {"removed": self.removed, "zeros": self.zeros}


def taken_of(model: nn.Module, groups: Sequence[Group], keeps: Sequence[Tensor]) -> Taken:
    """Return what goes from a model, as it is before that, with the units that are not kept."""
    tensors, parameters = tensors_of(model), dict(model.named_parameters())
    removed: Positions = {}
    zeros: Positions = {}
    for name, dims in alive_along(groups, keeps, {n: t.shape for n, t in tensors.items()}).items():
        for dim, alive in dims.items():
            if bool(alive.all()):
                continue
            data = tensors[name].detach().movedim(dim, 0)
            zero = (data.reshape(data.shape[0], -1) == 0).all(1).cpu()
            removed.setdefault(plain_name(name), {})[str(dim)] = _said(~alive)
            if name in parameters:
                zeros.setdefault(plain_name(name), {})[str(dim)] = _said(~alive & zero)
    return Taken(removed, zeros)


def followed_by(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of two, one after the other: from the model before the first to the one after the second."""
    attributes = {
        path: {**first["attributes"].get(path, {}), **second["attributes"].get(path, {})}
        for path in {**first["attributes"], **second["attributes"]}
    }
    both = {**second, "attributes": attributes}
    if "removed" not in first or "removed" not in second:  # version 1 does not say
        return {key: value for key, value in both.items() if key not in ("removed", "zeros")}
    merged: dict[str, Positions] = {}
    for kind in ("removed", "zeros"):
        merged[kind] = {n: dict(dims) for n, dims in first[kind].items()}
        for name, dims in second[kind].items():
            for dim, positions in dims.items():
                gone = _read(first["removed"].get(name, {}).get(dim, ""))
                later = _read(positions)
                if not later:
                    continue
                left = [i for i in range(1 + max(later) + len(gone)) if i not in set(gone)]
                before = _read(merged[kind].get(name, {}).get(dim, ""))
                merged[kind].setdefault(name, {})[dim] = _written([*before, *(left[i] for i in later)])
    return both | merged


def larger(recipe: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes, before anything was taken out, of the tensors that lost something. Version 1 knows none."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, dims in recipe.get("removed", {}).items():
        shape = list(recipe["tensors"][name])
        for dim, positions in dims.items():
            shape[int(dim)] += len(_read(positions))
        shapes[name] = tuple(shape)
    return shapes


def take_out(state: MutableMapping[str, Any], recipe: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Take out of a state_dict of the larger model what was taken out of the model, in place.

    Args:
        state: tensors by name.
        recipe: of the smaller model, version 2 or later.
        names: key in `state` -> name in the recipe; a tied tensor has several keys.

    Raises:
        StillAliveError: what was zero when it was taken out is not zero here; nothing is changed then.
    """
    cut: dict[str, Tensor] = {}
    alive: list[str] = []
    for key, name in names.items():
        data = state[key]
        for dim, positions in recipe["removed"].get(name, {}).items():
            zeros = torch.tensor(_read(recipe["zeros"].get(name, {}).get(dim, "")), dtype=torch.long)
            if bool(state[key].index_select(int(dim), zeros.to(data.device)).ne(0).any()):
                alive.append(key)
            keep = torch.ones(state[key].shape[int(dim)], dtype=torch.bool)
            keep[_read(positions)] = False
            data = data.index_select(int(dim), keep.nonzero().flatten().to(data.device))
        cut[key] = data
    if alive:
        raise StillAliveError(
            f"units that were taken out of the model are alive in these weights: {len(set(alive))} tensors, "
            f"{alive[0]!r} first, are not zero where the model at the end of its run was. They are from before the "
            "last update of the masks"
        )
    state.update(cut)


def _said(chosen: Tensor) -> str:
    return _written(chosen.nonzero().flatten().tolist())


def _written(positions: Sequence[int]) -> str:
    """Return numbers as ranges: 0, 1, 2, 7 is "0-2,7"."""
    ranges: list[list[int]] = []
    for i in sorted(positions):
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in ranges)


def _read(positions: str) -> list[int]:
    found: list[int] = []
    for part in positions.split(",") if positions else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
