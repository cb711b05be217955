"""A schedule for what is timed: an update at every step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stairs:
    """A schedule that updates at every step, to the sparsities given."""

    sparsities: tuple[float, ...]
    begin_step: int = 0

    @property
    def end_step(self) -> int:
        return len(self.sparsities) - 1

    @property
    def final_sparsity(self) -> float:
        return self.sparsities[-1]

    def resolve(self, total_steps: int | None) -> Stairs:
        return self

    def last_update(self, step: int) -> int:
        return min(step, self.end_step)

    def sparsity(self, step: int) -> float:
        return self.sparsities[step]
