"""What learned masks compose, and what comes of it on a model: where the masks are, and what is learned."""

from __future__ import annotations

from typing import Protocol

from lightning_prune.gate import Gate, ThresholdGate
from lightning_prune.learned.logits import Logits
from lightning_prune.learned.masked_units import MaskedUnits
from lightning_prune.learned.masked_weights import MaskedWeights
from lightning_prune.learned.thresholds import Thresholds
from lightning_prune.mask_regularizer import MaskRegularizer
from lightning_prune.pattern import CoupledPattern, Pattern
from lightning_prune.pruning.waiting import Waiting
from lightning_prune.schedule import Schedule
from lightning_prune.targets import Targets


class Ideas(Protocol):
    """What learned masks compose."""

    schedule: Schedule | None
    gate: Gate | ThresholdGate
    mask_regularizer: MaskRegularizer | None
    pattern: CoupledPattern | Pattern
    targets: Targets
    task_share: float | None
    lr: float
    threshold: float
    seed: int


def sites_of(ideas: Ideas, waiting: Waiting) -> MaskedUnits | MaskedWeights:
    """Return where the masks are on a model, of which some may not train. Raises ValueError if there is no place."""
    if isinstance(ideas.pattern, CoupledPattern):
        return MaskedUnits(ideas.pattern, ideas.targets, waiting)
    return MaskedWeights(ideas.targets, waiting)


def logits_of(ideas: Ideas, sites: MaskedUnits | MaskedWeights) -> Logits:
    """Return what is learned: a logit for each unit, or a threshold for each weight tensor."""
    gate, budget = ideas.gate, ideas.schedule is not None
    owners = [sites.owner(number) for number in range(len(sites.sizes))]
    of = (sites.names, sites.sizes, owners[0].device, ideas.lr, ideas.seed)
    if isinstance(gate, ThresholdGate):
        return Thresholds(budget, [gate.at(weight, 0.5 if budget else ideas.threshold) for weight in owners], *of)
    return Logits([gate] * len(owners), *of)
