"""The pruned weights of a model by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_prune.masks.checksum import checksums
from lightning_prune.masks.masked_weight import MaskedWeight, apply_all
from lightning_prune.masks.memory import check_own
from lightning_prune.masks.places import Places
from lightning_prune.masks.steps import Steps
from lightning_prune.masks.zeros import zero_, zero_copies
from lightning_prune.shards import reshard, resharding
from lightning_prune.targets import Target


class Masks(Mapping[str, MaskedWeight]):
    """The masked weights of a model, by name; a tied weight answers to each of its names.

    Args:
        targets: the weights.
        reversible: keep their last dense values.
        model: where `follow` looks for them; None where they stay what they are.

    Raises:
        ValueError: a weight is on the meta device, shares its memory with another parameter, or is masked by torch's
            own pruning; no module is changed then.
    """

    def __init__(self, targets: Sequence[Target], reversible: bool, model: nn.Module | None = None) -> None:
        for target in targets:
            if target.parameter.is_meta:
                raise ValueError(f"'{target.name}' is on the meta device and has no values: load some before pruning")
        if model is not None:
            check_own(model, targets)
        self._weights = {target.name: MaskedWeight(target, reversible) for target in targets}
        self._aliases = {alias: target.name for target in targets for alias in target.names}
        self._model = model
        self._places = None if model is None else Places(model, self._aliases)
        self._resharding = [] if model is None or not self.split else resharding(model)
        self._followers: Mapping[str, str] = {}
        self._steps: dict[int, Steps] = {}

    def __getitem__(self, name: str) -> MaskedWeight:
        """Return the masked weight of that name."""
        return self._weights[self._aliases[name]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, each weight once."""
        return iter(self._weights)

    def __len__(self) -> int:
        """Return the number of masked weights."""
        return len(self._weights)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out of copies and pickles: they hold on to the parameters that they have."""
        return vars(self) | {"_model": None, "_places": None, "_steps": {}, "_resharding": []}

    def lead(self, followers: Mapping[str, str]) -> None:
        """Have weights of the model, by name, get the masks of others: see `apply_to_followers`."""
        self._followers = dict(followers)
        self.apply_to_followers()

    def apply_to_followers(self) -> None:
        """Set the entries of weights that follow others to zero that are pruned there."""
        if not self._followers or self._model is None:
            return
        for name, place in Places(self._model, self._followers).found.items():
            leader = self[self._followers[name]]
            if place.parameter is None or not place.fits(leader.mask.shape):
                raise ValueError(f"'{name}' follows '{leader.target.name}' and was replaced: there is {place} now")
            if leader.pruned:
                zero_(place.parameter, leader.mask.to(place.parameter.device))

    def add(self, targets: Sequence[Target], reversible: bool) -> None:
        """Mask more weights of the model."""
        if self._model is not None:
            check_own(self._model, targets)
        self._weights |= {target.name: MaskedWeight(target, reversible) for target in targets}
        self._aliases |= {alias: target.name for target in targets for alias in target.names}
        self._places, self._steps = None, {}
        self.follow()

    def follow(self) -> bool:
        """Act on the parameters that lie in the model now, and return whether one of them, or its module, is new.

        Raises:
            ValueError: a mask does not fit what lies under its weight's name now. No mask has moved then.
        """
        reshard(self._resharding)
        if self._model is None or (self._places is not None and self._places.same()):
            return False
        places = Places(self._model, self._aliases)
        names: dict[int, str] = {}
        for name, weight in self.items():
            weight.check(places.found)
            other = names.setdefault(id(places.found[name].parameter), name)
            if other != name:
                raise ValueError(
                    f"'{other}' and '{name}' have become one parameter while they were being pruned, each with a mask "
                    "of its own: tie them before pruning begins"
                )
        for weight in self.values():
            weight.follow(places.found)
        self._places, self._steps = places, {}
        return True

    @property
    def split(self) -> bool:
        """Whether weights are taken apart over ranks."""
        return any(weight.shard is not None for weight in self.values())

    @property
    def pruned(self) -> int:
        """How many entries are masked in all."""
        return sum(weight.pruned for weight in self.values())

    def of(self, optimizer: Optimizer | None) -> list[MaskedWeight]:
        """Return the weights that an optimizer steps, or all."""
        if optimizer is None:
            return list(self.values())
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [weight for weight in self.values() if id(weight.parameter) in stepped]

    def steps(self, optimizer: Optimizer) -> Steps:
        """Return what stands around the steps of an optimizer: the same each time, as long as it steps the same."""
        parameters = [id(p) for group in optimizer.param_groups for p in group["params"]]
        known = self._steps.get(id(optimizer))
        if known is None or known.optimizer is not optimizer or known.parameters != parameters:
            known = self._steps[id(optimizer)] = Steps(optimizer, parameters, self.of(optimizer))
        return known

    def apply(self) -> None:
        """Set pruned entries of all weights to zero."""
        apply_all(self.values())
        self.apply_to_followers()

    def apply_to(self, saved: Any) -> None:
        """Zero pruned entries wherever nested dicts hold a tensor under the name and shape of a masked weight."""
        of = {alias: alias for alias in self._aliases} | dict(self._followers)
        zero_copies(saved, {name: self[alias].mask for name, alias in of.items() if self[alias].pruned})

    def digest(self) -> bytes:
        """Return 8 bytes that differ where masks or thresholds differ; a device is waited for once, no mask is copied.

        One entry that moves is always seen; see `checksum`. Of weights that are taken apart the pieces' numbers are
        added up over ranks, and replicas are compared.
        """
        hashed = hashlib.blake2b(digest_size=8)
        numbers = checksums((w.mask for w in self.values()), [w.shard for w in self.values()])
        for (name, weight), checksum in zip(self.items(), numbers, strict=True):
            hashed.update(f"{name}/{float(weight.threshold)!r}/{weight.pruned}/{checksum}/".encode())
        return hashed.digest()

    def hide(self) -> None:
        """Remove all attributes from the modules."""
        for weight in self.values():
            weight.hide()
