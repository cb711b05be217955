"""Entries of tensors that belong together: a union-find over tensor name, dimension and position."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightning_prune.coupling.layers import layer_of
from lightning_prune.coupling.units import Group, Part, Role

Key = tuple[str, int, int]
"""Tensor name, dimension, position."""

Places = dict[tuple[str, int, Role], list[int]]
"""Tensor name, dimension and role -> the positions of one unit."""


class Ties:
    """Entries tied together: a union-find over tensor name, dimension and position."""

    def __init__(self, model: nn.Module) -> None:
        self._first = {id(t): n for n, t in _first_names(model)}
        self._model = dict(model.named_parameters(remove_duplicate=False)) | dict(
            model.named_buffers(remove_duplicate=False)
        )
        self._parent: dict[Key, Key] = {}
        self._role: dict[Key, Role] = {}
        self._reasons: list[tuple[Key, str]] = []

    def of(self, path: str, module: nn.Module, channel: int) -> Key:
        """Return the entry that stands for an output channel of a layer."""
        layer = layer_of(module)
        assert layer is not None
        attribute, dim, place, role = next(iter(layer.outgoing(module, channel)))
        return self._key(path, attribute, dim, place, role)

    def tie(self, unit: Key, path: str, attribute: str, dim: int, place: int, role: Role) -> None:
        """Make an entry part of the unit."""
        self.join(unit, self._key(path, attribute, dim, place, role))

    def join(self, one: Key, other: Key) -> None:
        """Make one unit of two."""
        one, other = self._root(one), self._root(other)
        if one != other:
            self._parent[max(one, other)] = min(one, other)

    def refuse(self, unit: Key, reason: str) -> None:
        """Say why a unit cannot be removed."""
        self._reasons.append((unit, reason))

    def _key(self, path: str, attribute: str, dim: int, place: int, role: Role) -> Key:
        name = self._first[id(self._model[f"{path}.{attribute}".removeprefix(".")])]
        key = (name, dim, place)
        self._parent.setdefault(key, key)
        self._role.setdefault(key, role)
        return key

    def _root(self, key: Key) -> Key:
        while self._parent[key] != key:
            self._parent[key] = key = self._parent[self._parent[key]]
        return key

    def _components(self) -> tuple[dict[Key, list[Key]], dict[Key, str]]:
        """Return the entries of each unit, and why some cannot be removed."""
        members: dict[Key, list[Key]] = {}
        for key in self._parent:
            members.setdefault(self._root(key), []).append(key)
        refused = {self._root(unit): reason for unit, reason in reversed(self._reasons)}
        for root, keys in members.items():
            if not any(self._role[key] == "in" for key in keys):
                refused.setdefault(root, "no layer that reads its channels was found")
        return members, refused

    def groups(self) -> list[Group]:
        """Return the units that nothing speaks against, those that slice the same tensors together."""
        return [group for found in self._alike().values() if len(found) > 1 for group in self._group(found)]

    def _alike(self) -> dict[tuple[tuple[str, int, int, str], ...], list[Places]]:
        members, refused = self._components()
        alike: dict[tuple[tuple[str, int, int, str], ...], list[Places]] = {}
        for root, keys in members.items():
            if root in refused:
                continue
            places: Places = {}
            for name, dim, place in keys:
                places.setdefault((name, dim, self._role[name, dim, place]), []).append(place)
            shape = tuple(sorted([(n, d, len(p), r) for (n, d, r), p in places.items()]))
            alike.setdefault(shape, []).append(places)
        return alike

    def _group(self, units: list[Places]) -> Iterator[Group]:
        order = list(self._order())
        keys = sorted(units[0], key=lambda k: (order.index(k[0]), k[1]))
        units.sort(key=lambda places: min(places[keys[0]]))
        parts = tuple(Part(n, d, torch.tensor([sorted(u[n, d, r]) for u in units]), r) for n, d, r in keys)
        first = next((part.name for part in parts if part.role == "out" and self._model[part.name].dim() > 1), None)
        if first is not None:
            yield Group(first, len(units), parts)

    def _order(self) -> Iterator[str]:
        return iter(self._model)

    def refused(self) -> dict[str, str]:
        """Return for every weight that computes refused units the reason."""
        members, refused = self._components()
        reasons: dict[str, str] = {}
        for root, reason in refused.items():
            for key in sorted(members[root]):
                if self._role[key] in ("out", "norm") and self._model[key[0]].dim() > 1:
                    reasons.setdefault(key[0], reason)
        for found in self._alike().values():
            for name, _, role in found[0]:
                if len(found) == 1 and role == "out":
                    reasons.setdefault(name, "its channels all hang together, or each on others in another way")
        return reasons


def _first_names(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
