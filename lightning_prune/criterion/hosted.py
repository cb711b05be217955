"""A criterion that computes on the host: all weights of an update come at once, so a device is waited for once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from lightning_prune.criterion.protocol import SitedCriterion


@runtime_checkable
class HostedCriterion(Protocol):
    """A criterion that looks at weights on the host, wherever they lie."""

    def hosted(self, weights: Mapping[str, Tensor]) -> SitedCriterion:
        """Return the criterion for one update; it finds these weights, by name and output dimension first, here.

        It may be asked for others as well. Scores lie where the weight that it is asked for does.
        """
        ...
