"""The schedule of a model that is sparse already: its zeros are held, and nothing more is pruned."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_prune import steps


@dataclass(frozen=True)
class Hold:
    """Hold the zeros that the weights have when the pruner is attached.

    The masks are read off the weights: what is zero then stays zero, and all else trains. A pattern says what is read:
    `Element` every zero, `Row`, `Block` and the like units that are zero as a whole, `Channel` units of which nothing
    is left. Criterion, scope and selection are not asked. A state that is gone on from brings its own masks.

    What is asked for is not known before a model is seen, so that `final_sparsity` is 0 here; the pruner asks for
    `holding(sparsity)` once it has looked.
    """

    @property
    def final_sparsity(self) -> float:
        """Nothing is pruned beyond what is zero."""
        return 0.0

    @property
    def begin_step(self) -> int:
        """The zeros are held from before the first step on."""
        return 0

    @property
    def end_step(self) -> int:
        """There is nothing to do later."""
        return 0

    def resolve(self, total_steps: int | None) -> Hold:
        """Return this schedule: it has no positions."""
        return self

    def last_update(self, step: int) -> int:
        """Return 0."""
        return 0

    def sparsity(self, step: int) -> float:
        """Return 0: nothing is pruned."""
        return 0.0

    def holding(self, sparsity: float) -> Held:
        """Return the schedule for a model that came with zeros: `sparsity` is their share, in [0, 1]."""
        return Held(sparsity)


@dataclass(frozen=True)
class Held:
    """What `Hold` asks of a model whose zeros are known.

    Args:
        final_sparsity: the share of weights that are held at zero, in [0, 1].

    Raises:
        ValueError: it is no share.
    """

    final_sparsity: float

    def __post_init__(self) -> None:
        steps.check_sparsity("final_sparsity", self.final_sparsity)

    @property
    def begin_step(self) -> int:
        """The zeros are held from before the first step on."""
        return 0

    @property
    def end_step(self) -> int:
        """There is nothing to do later."""
        return 0

    def resolve(self, total_steps: int | None) -> Held:
        """Return this schedule: it has no positions."""
        return self

    def last_update(self, step: int) -> int:
        """Return 0."""
        return 0

    def sparsity(self, step: int) -> float:
        """Return the share that is held."""
        return self.final_sparsity
