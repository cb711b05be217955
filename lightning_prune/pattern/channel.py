"""Whole channels as units, with all that hangs on them in every layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from lightning_prune import given
from lightning_prune.coupling.couple import couple
from lightning_prune.coupling.units import Coupling


@dataclass(frozen=True)
class Channel:
    """Prune what can be taken out of a model: filters, neurons, hidden units of recurrent layers, attention heads.

    A unit is every slice that computes it, shifts or scales it, and reads it, in all layers that add, concatenate or
    otherwise share its channel; one mask serves them all. The groups come from Torch-Pruning's dependency graph (Fang
    et al. 2023, arXiv 2301.12900), traced when pruning starts, and each is proved by removing some of its units from a
    copy. The output layer stays whole, and each group keeps at least one unit. A unit's score is the sum, over the
    weights that compute it, of the mean score of its entries; with `readers` over the weights that read it, too.

    Args:
        multiple: each group keeps a multiple of so many units (8, 16, 32 for hardware).
        kinds: "channel" for channels, neurons and hidden units, "head" for attention heads.
        normalize: divide scores by their group's mean, in which units pruned before count as 0, so that groups of
            different scale can be ranked together.
        readers: score units by the weights that read them as well, for criteria of single weights. Those tell more:
            what a norm layer follows can be of any size without changing the model.
        example_inputs: what one forward takes: a tensor, a tuple of arguments or a dict of keywords; None for the
            module's `example_input_array`.

    Raises:
        ValueError: a multiple below 1, or an unknown kind.
    """

    multiple: int = 1
    kinds: tuple[Literal["channel", "head"], ...] = ("channel", "head")
    normalize: bool = True
    readers: bool = False
    example_inputs: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        given.whole("multiple", self.multiple, 1)
        given.flag("normalize", self.normalize)
        given.flag("readers", self.readers)
        kinds: Any = self.kinds
        if isinstance(kinds, str) or not kinds or not set(kinds) <= {"channel", "head"}:
            raise ValueError(f"kinds={kinds!r} must be a list of 'channel' and 'head'")
        object.__setattr__(self, "kinds", tuple(kinds))

    def couple(self, model: nn.Module) -> Coupling:
        """Return the groups of the model's units."""
        return couple(model, self.example_inputs, self.kinds)
