"""Where a criterion looks at training: at a weight, or at the layers that read the units of a group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune import observing
from lightning_prune.coupling.units import Part, slices_of
from lightning_prune.criterion import Site
from lightning_prune.masks import MaskedWeight
from lightning_prune.pruning.asking import own_part, seen_of
from lightning_prune.ranking import where_float64_is

NO_LAYER = "it is a parameter without a layer of its own"


@dataclass
class Observed:
    """One weight, or one layer that reads a group's units, and what was seen of it since the latest optimizer step.

    Attributes:
        weight: in whose memory the sums go.
        watched: the weight whose layer is looked at.
        own: what the keys of its sums begin with.
        out: the slices of `weight` that compute the units looked at; None where its outputs are.
        read: and the slices of `watched` that read them.
    """

    weight: MaskedWeight
    watched: MaskedWeight
    own: str = ""
    out: Part | None = None
    read: Part | None = None
    pending: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])
    _channels: Tensor | None = None
    _whole: bool = False

    @property
    def memory(self) -> dict[str, Tensor]:
        """What the criterion remembers, its own keys."""
        return own_part(self.weight.memory, self.own)

    def values(self, criterion: Any) -> Tensor:
        """Return the weight as the criterion gets it."""
        if self.out is None:
            return seen_of(self.weight, criterion)[0]
        values = self.weight.values.detach()
        if self.out.dim == 0 and _all_in_order(self.out.index, values.shape[0]):
            return values.flatten(1)
        return slices_of(values, self.out)

    def units(self, module: Any, x: Any) -> Tensor:
        """Return the units' values in a layer's input, (examples, units, positions)."""
        assert self.read is not None
        if self._channels is None:
            index = observing.channels_of(module, self.read.index)
            self._channels = index.to(x.data.device)
            self._whole = _all_in_order(index, observing.width_of(module))
        return observing.units_of(module, x, None if self._whole else self._channels)


def readers(weights: Mapping[str, MaskedWeight], number: int, out: Part, parts: Iterable[Part]) -> list[Observed]:
    """Return the layers at whose input the units of a group can be seen; those inside of which they are read are not.

    Args:
        weights: by name.
        number: of the group.
        out: the slices of the first weight that computes them.
        parts: the slices that read them.
    """
    every = [
        Observed(weights[out.name], weights[part.name], f"{number}/{index}/", out, part)
        for index, part in enumerate(parts)
        if part.name in weights
    ]
    clear = [place for place in every if place.watched.target.owners and _read_first(place)]
    return clear or every


def _read_first(place: Observed) -> bool:
    module, attribute = place.watched.target.owners[0]
    if observing.why_unseen(module, True) is not None:
        return False
    if isinstance(module, nn.RNNBase):
        return attribute in ("weight_ih_l0", "weight_ih_l0_reverse")
    return not isinstance(module, nn.MultiheadAttention) or attribute in ("in_proj_weight", "q_proj_weight")


def check_seen(places: Sequence[Observed], criterion: Any) -> None:
    """Raise ValueError if what a criterion wants to look at cannot be seen from outside of the layers."""
    if criterion.observes == "gradient":
        return
    found: dict[str, str] = {}
    for place in places:
        name = place.watched.target.name
        if place.weight.shard is not None or place.watched.shard is not None:
            raise ValueError(
                f"'{name}' is taken apart over ranks, and criterion={criterion} looks at the {criterion.observes} of "
                "whole layers: use a criterion of weights or gradients, or prune under DDP"
            )
        why = NO_LAYER if place.weight.experts > 1 else why_unseen(place.watched, place.read is not None)
        if why is not None:
            found[name] = why
    if found:
        told = "; ".join(f"'{name}': {why}" for name, why in found.items())
        raise ValueError(
            f"criterion={criterion} looks at the {criterion.observes} of layers, and that of some cannot be seen "
            f"({told}): leave them out by Targets(exclude=...), or use a criterion of weights or gradients"
        )


def why_unseen(weight: MaskedWeight, units: bool = False) -> str | None:
    """Return why what a weight multiplies cannot be seen from outside of its layers; None if it can.

    Args:
        weight: the weight.
        units: only the units that it reads are looked at.
    """
    if weight.experts > 1 or not weight.target.owners:
        return NO_LAYER
    for module, attribute in weight.target.owners:
        why = observing.why_unseen(module, units)
        if why is not None or not (units or attribute == "weight"):
            return why or "it multiplies no input"
    return None


def worth_of(criterion: Any, places: Sequence[Observed], step: int, sparsity: float) -> Tensor:
    """Return what the units of a group are worth, by layers that read them: the mean of what each says. On the device.

    Args:
        criterion: one that looks at units.
        places: the layers that read the group's units.
        step: the update step.
        sparsity: the share that the schedule asks for.
    """
    found: list[Tensor] = []
    for place in places:
        if not place.memory:  # another layer has seen them
            continue
        site = Site(place.weight.target.name, step, place.memory, sparsity)
        weight = place.values(criterion)
        scores = criterion.at(site)(weight, None)
        if scores.shape != weight.shape:
            raise ValueError(
                f"{type(criterion).__name__} must give a score for every entry of the units of "
                f"'{place.weight.target.name}', of shape {tuple(weight.shape)}; it gave shape {tuple(scores.shape)}"
            )
        found.append(where_float64_is(scores[:, 0]))
    return torch.stack(found).mean(0)


def _all_in_order(index: Tensor, size: int) -> bool:
    """Return whether each unit is one place, and together they are all, one after the other."""
    return index.shape == (size, 1) and bool((index[:, 0] == torch.arange(size, device=index.device)).all())
