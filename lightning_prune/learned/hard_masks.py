"""Which units learned masks keep if it were the end now: what evaluation, files and reports go by."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_prune.learned.logits import Logits
from lightning_prune.learned.masked_units import MaskedUnits
from lightning_prune.learned.masked_weights import MaskedWeights
from lightning_prune.ranking import counts
from lightning_prune.schedule import Schedule


class HardMasks:
    """Hard masks that follow what is learned; they are decided when they are asked for, and only shown on the model.

    Args:
        sites: where the masks are.
        logits: what is learned.
        threshold: T, above which a probability keeps its unit where no schedule says how many stay.
        scheduled: whether a schedule does.

    Attributes:
        keeps: for each group which units stay, bool; of units on the CPU, of single weights where the weights are.
    """

    def __init__(self, sites: MaskedUnits | MaskedWeights, logits: Logits, threshold: float, scheduled: bool) -> None:
        self._sites = sites
        self._logits = logits
        self._threshold = threshold
        self._scheduled = scheduled
        self.keeps = [torch.ones(size, dtype=torch.bool) for size in sites.sizes]
        self._stale = not scheduled
        self._at_update = {name: weight.mask for name, weight in sites.masks.items()}

    def outdate(self) -> None:
        """Take note that what they follow from has changed."""
        self._stale = True

    @torch.no_grad()
    def settle(self, schedule: Schedule, step: int | None) -> None:
        """Decide which units stay where that is out of date: as many as a schedule asks for, or those above T."""
        if not self._stale:
            return
        self._stale = False
        if self._scheduled:
            assert step is not None
            worth = [worth.float() for worth in self._logits.worth()]
            self.keeps, between = self._sites.choose(schedule, step, worth)
            self._logits.follow(worth, self.keeps)
        else:
            self.keeps = self._logits.above(self._threshold)
            between: Sequence[float] = [self._threshold] * len(self.keeps)
        for decision in self._sites.decisions(self.keeps, self._logits.thresholds(between)):
            decision.weight.propose(decision.mask, decision.threshold)

    def share_changed(self) -> float:
        """Return the share of all mask entries that differ from those when this was asked before."""
        masks = {name: weight.mask for name, weight in self._sites.masks.items()}
        changed = sum(counts(mask != self._at_update[name] for name, mask in masks.items()))
        self._at_update = masks
        return changed / sum(mask.numel() for mask in masks.values())

    def restored(self, stale: bool) -> None:
        """Go on from masks that a state has brought, which may be out of date."""
        self._at_update = {name: weight.mask for name, weight in self._sites.masks.items()}
        self._stale = stale
