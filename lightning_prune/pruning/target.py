"""A sparsity for a target: so many MACs or parameters, or so many times faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from lightning_prune.cost import count, latency
from lightning_prune.coupling.example import example_of
from lightning_prune.pruning.bisect import least_sparsity
from lightning_prune.pruning.ideas import Ideas
from lightning_prune.pruning.trial import Trial
from lightning_prune.shown import by_reason

Kind = Literal["macs", "parameters", "speedup"]
_BLOCKS, _FORWARDS = 8, 5
_FINE, _COARSE = 1e-3, 5e-3
"""How near the sparsity is found: where the cost is counted, and where it is measured."""


class UnreachableError(ValueError):
    """Even with all gone that may go, the target is not met."""


@dataclass(frozen=True)
class CostTarget:
    """What a smaller model is to cost.

    Args:
        kind: "macs" or "parameters", as a share of the larger model's that may stay; or "speedup", how many times
            faster a forward is to be.
        value: in (0, 1) for a share, above 1 for a speed-up.

    Raises:
        ValueError: the value is out of range.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        if self.kind == "speedup":
            if not (math.isfinite(self.value) and self.value > 1):
                raise ValueError(f"{self}: a speed-up is a number above 1; 2 halves the time")
        elif not 0 < self.value < 1:
            raise ValueError(f"{self}: it is the share that may stay, between 0 and 1; 0.5 halves it")

    def __str__(self) -> str:
        """Return it as it is written on a command line."""
        return f"{self.kind}={self.value:g}"

    @property
    def share(self) -> float:
        """The cost asked for, as a share of the larger model's."""
        return 1 / self.value if self.kind == "speedup" else self.value

    def of_share(self, share: float) -> str:
        """Return a cost, as a share of the larger model's, in the words of the target."""
        return f"{self.kind}={self._in_words(share):.3g}"

    def _in_words(self, share: float) -> float:
        if self.kind != "speedup":
            return share
        return 1 / share if share else math.inf


@dataclass(frozen=True)
class Found:
    """The sparsity that meets a target, and the cost that the pruned copy had at it, as a share of the model's."""

    sparsity: float
    share: float


def sparsity_for(
    model: nn.Module, pruner: Ideas, target: CostTarget, example_inputs: Any = None, trial: Trial | None = None
) -> Found:
    """Return the least sparsity at which a copy, pruned along the schedule and made smaller, meets a target.

    MACs and parameters are counted. Latencies are measured, of the copy and of the model in turn, where the model is;
    what they say is measured again, and while it does not hold, a little more goes.

    Args:
        model: trained; it stays as it is.
        pruner: not attached; its ideas say what goes, and its schedule's final sparsity is what is looked for.
        target: what to meet.
        example_inputs: what one forward takes; None for the module's `example_input_array`.
        trial: makes the copies; None for one of this pruner.

    Raises:
        UnreachableError: the target is not met with one unit left in each group; the message says what can be met, and
            what stays whole.
        ValueError: there are no example inputs, or no units that can be taken out.
    """
    inputs = example_of(model, example_inputs)
    trial = trial or Trial(model, pruner)
    dense = float("nan") if target.kind == "speedup" else float(getattr(count(model, inputs), target.kind))

    def share(sparsity: float, blocks: int = _BLOCKS) -> float:
        smaller = trial.smaller(sparsity)
        if target.kind != "speedup":
            return getattr(count(smaller, inputs), target.kind) / dense if dense else 1.0
        before, after = steady_latency((model, smaller), inputs, blocks)
        return after / before

    precision = _COARSE if target.kind == "speedup" else _FINE
    sparsity = least_sparsity(share, target.share, precision)
    if sparsity is None:
        raise UnreachableError(_unreachable(target, share(1.0, 2 * _BLOCKS), trial))
    met = share(sparsity, 2 * _BLOCKS)
    while met > target.share and sparsity < 1.0:  # a latency that did not hold
        sparsity = min(1.0, sparsity + 2 * precision)
        met = share(sparsity, 2 * _BLOCKS)
    if met > target.share:
        raise UnreachableError(_unreachable(target, met, trial))
    return Found(sparsity, met)


def steady_latency(models: Sequence[nn.Module], example_inputs: Any, blocks: int = _BLOCKS) -> list[float]:
    """Return the milliseconds that a forward of each model takes: the least of the medians of short blocks, in turn.

    What else the machine does slows some blocks down, and speeds none up.
    """
    each = [latency(models, example_inputs, _FORWARDS) for _ in range(blocks)]
    return [min(times) for times in zip(*each, strict=True)]


def _unreachable(target: CostTarget, least: float, trial: Trial) -> str:
    units = "one unit" if trial.multiple == 1 else f"{trial.multiple} units"
    stays = "; ".join(by_reason("left whole", trial.skipped)) or "no weight is left whole"
    hint = "; a forward of a larger batch gains more than a small one" if target.kind == "speedup" else ""
    return (
        f"{target} cannot be met: {target.of_share(least)} is the most that can be taken out, with {units} left in "
        f"each of {trial.groups} group{'s' if trial.groups > 1 else ''}; {stays}{hint}"
    )
