"""The scale of the norm layer behind the weight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from lightning_prune.criterion.protocol import Site, of_each_weight


@dataclass(frozen=True)
class NormScale:
    """Score every weight of a filter by |gamma|, what the norm layer behind multiplies the filter's output by.

    Needs a pattern that knows which norm that is: a channel pattern. Source: network slimming, Liu et al. 2017, arXiv
    1708.06519.

    Args:
        name: the weight's name, set by the pruner.
        norm: the norm's scale, one entry per output, set by the pruner; None where the pattern knows of none.
    """

    name: str = ""
    norm: Tensor | None = None

    needs_norm: ClassVar[bool] = True
    of_outputs: ClassVar[bool] = True

    def at(self, site: Site) -> NormScale:
        """Return the criterion for that weight."""
        return replace(self, name=site.name, norm=site.norm)

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return |gamma| of every output for each of its weights.

        Raises:
            ValueError: no norm is known behind the weight, or it has another number of outputs.
        """
        if self.norm is None:
            raise ValueError(
                f"NormScale() knows of no norm layer behind '{self.name}': use a channel pattern, and leave weights "
                "without a norm behind them out by Targets(exclude=...)"
            )
        outputs = weight.shape[:1].numel()
        if self.norm.numel() != outputs:
            raise ValueError(f"the norm behind '{self.name}' has {self.norm.numel()} scales for {outputs} outputs")
        return of_each_weight(self.norm.detach().abs().flatten(), weight)
