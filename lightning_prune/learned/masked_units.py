"""Learned masks on units: put on what layers read, decided by whole groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_prune.criterion import Magnitude
from lightning_prune.learned.hooks import Masking
from lightning_prune.learned.input_hooks import Factors, MaskInput, batch_dimension, unreadable
from lightning_prune.learned.weight_hooks import Handle, mask_weight, read_inside
from lightning_prune.masks import Masks
from lightning_prune.observing import channels_of, width_of
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning.unit_targets import unit_targets
from lightning_prune.pruning.unit_update import UnitUpdate
from lightning_prune.pruning.waiting import Waiting, candidates, that_train
from lightning_prune.pruning.weight_update import Decision
from lightning_prune.ranking import on_host
from lightning_prune.schedule import OneShot, Schedule
from lightning_prune.scope import GlobalRanking
from lightning_prune.selection import Exact
from lightning_prune.targets import Targets


class MaskedUnits:
    """The groups of units of a model that can be masked where they are read.

    Attributes:
        names: a group's first weight, twice with a number behind it.
        sizes: how many units a group has.
        masks: the hard masks of all tensors that units slice.
        counted: the names of those among which zeros are counted.
        skipped: name of every other parameter -> why it is left whole.
        waiting: those of them that do not train.

    Raises:
        ValueError: there are no such groups; the message says why.
    """

    def __init__(self, pattern: CoupledPattern, targets: Targets, waiting: Waiting) -> None:
        self.waiting, model = waiting, waiting.model
        coupling = pattern.couple(model)
        reasons = {group.name: unreadable(model, group) for group in coupling.groups}
        refused = coupling.refused | {name: reason for name, reason in reasons.items() if reason is not None}
        groups = tuple(group for group in coupling.groups if reasons[group.name] is None)
        found = that_train(targets, candidates(targets, model), waiting)
        coupling = replace(coupling, groups=groups, refused=refused)
        units = unit_targets(model, found, coupling, waiting.to_leave(targets))
        self._model = model
        self._groups = units.groups
        self.masks = Masks(units.targets, False, model)
        self.counted = units.counted
        self.skipped = units.skipped
        self.names: list[str] = []
        for group in self._groups:
            self.names.append(group.name if group.name not in self.names else f"{group.name} ({len(self.names)})")
        self.sizes = [group.units for group in self._groups]
        counted = [weight for name, weight in self.masks.items() if name in self.counted]
        ideas = (Magnitude(), pattern, GlobalRanking(), Exact())
        self._units = UnitUpdate(OneShot(0.0, 0), self._groups, self.masks, counted, *ideas, reversible=True)

    def owner(self, number: int) -> nn.Parameter:
        """Return the first weight that computes the units of a group."""
        return self.masks[self._groups[number].name].parameter

    @property
    def grain(self) -> int:
        """How many counted weights the largest step of a group holds."""
        return self._units.grain

    @property
    def most(self) -> int:
        """How many counted weights are zero where one unit of each group is left."""
        return self._units.most

    def hook(self, masking: Masking) -> list[Handle]:
        """Have every layer read its units through masks, with one draw an example.

        What a layer reads inside is masked by the columns of its weights; its units have one draw a batch, everywhere.
        """
        outside: dict[nn.Module, dict[int, Tensor]] = {}
        inside: dict[tuple[nn.Module, str], dict[int, Tensor]] = {}
        shared: set[int] = set()
        batches: dict[int, set[int]] = {}
        for number, group in enumerate(self._groups):
            for part in group.of("in"):
                module, attribute = self.masks[part.name].target.owners[0]
                if read_inside(self._model, module, attribute):
                    shared.add(number)
                    _add(inside.setdefault((module, attribute), {}), number, part.index)
                else:
                    batches.setdefault(number, set()).add(batch_dimension(module))
                    _add(outside.setdefault(module, {}), number, channels_of(module, part.index))
        shared |= {number for number, dimensions in batches.items() if len(dimensions) > 1}
        handles: list[Handle] = [
            module.register_forward_pre_hook(
                MaskInput(Factors(width_of(module), read, masking, shared, reader)), with_kwargs=True
            )
            for reader, (module, read) in enumerate(outside.items())
        ]
        for reader, ((module, attribute), read) in enumerate(inside.items(), len(outside)):
            factors = Factors(getattr(module, attribute).shape[1], read, masking, shared, reader)
            handles += mask_weight(self._model, module, attribute, factors.columns)
        return handles

    def choose(self, schedule: Schedule, step: int, worth: Sequence[Tensor]) -> tuple[list[Tensor], list[float]]:
        """Return which units stay at a step of a schedule if they are worth so much, and the thresholds."""
        return replace(self._units, schedule=schedule).choose(step, on_host(worth))

    def decisions(self, keeps: Sequence[Tensor], thresholds: Sequence[float]) -> list[Decision]:
        """Return the masks of all tensors for the units kept."""
        return self._units.masks(keeps, thresholds)

    def from_zeros(self) -> list[Decision]:
        """Return the masks that the zeros of a stripped model show."""
        return self._units.from_zeros()

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Return the expected share of zeros among counted weights where units stay with these probabilities."""
        gone = [(1 - p).sum() for p in probabilities]
        return torch.as_tensor(self._units.zeros(gone) / self._units.size)

    def factors(self, settled: Sequence[Tensor]) -> dict[str, dict[int, Tensor]]:
        """Return by what the entries of tensors are multiplied, where it is not 1: name -> dimension -> factors."""
        factors: dict[str, dict[int, Tensor]] = {}
        for group, values in zip(self._groups, settled, strict=True):
            if bool((values == 1.0).all()):
                continue
            for part in group.of("in"):
                along = factors.setdefault(part.name, {}).setdefault(
                    part.dim, torch.ones(self.masks[part.name].mask.shape[part.dim])
                )
                along[part.index.flatten()] = values.cpu().repeat_interleave(part.index.shape[1])
        return factors

    def multiplied(self, name: str, tensor: Tensor, factors: Mapping[str, Mapping[int, Tensor]]) -> Tensor:
        """Return a copy of a tensor of that name, multiplied by its factors."""
        made = tensor.detach().clone()
        for dim, factor in factors.get(name, {}).items():
            shape = [1] * made.dim()
            shape[dim] = -1
            made *= factor.to(made).view(shape)
        return made


def _add(read: dict[int, Tensor], number: int, places: Tensor) -> None:
    read[number] = torch.cat([read[number], places], dim=1) if number in read else places
