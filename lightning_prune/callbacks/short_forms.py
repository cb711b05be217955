"""What may stand for a pruner: a final sparsity, or a schedule."""

from __future__ import annotations

from typing import cast

from lightning_prune.dynamic import DynamicGates
from lightning_prune.given import plain
from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import Polynomial, Schedule


def pruner_of(given: Pruner | LearnedMasks | DynamicGates | Schedule | float) -> Pruner:
    """Return the pruner that an argument of `PruningCallback` means. Raises ValueError if it means none."""
    given = plain(given)
    if isinstance(given, (int, float)):
        if isinstance(given, bool) or not 0 <= given <= 1:
            raise ValueError(f"PruningCallback({given!r}): a sparsity is a share between 0 and 1; 0.9 prunes 90 %")
        return Pruner(Polynomial(float(given), begin_step=0.05, end_step=0.4, pruning_frequency=0.004))
    if hasattr(given, "attach"):
        return cast(Pruner, given)  # the others have the same verbs
    if hasattr(given, "last_update"):
        return Pruner(cast(Schedule, given))
    raise ValueError(f"PruningCallback({given!r}): pass a Pruner, a schedule or a final sparsity")
