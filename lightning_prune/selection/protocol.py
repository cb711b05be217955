"""What a selection must answer, and the scored units that it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_prune.ranking import count, ends, on_host, read
from lightning_prune.shards import Shard, each, highest


@dataclass(frozen=True)
class Units:
    """The units of one weight, to be ranked.

    Attributes:
        name: dotted name of the weight, for errors.
        values: scores in the units' shape; or, where `absolute`, the weight itself, whose score is its absolute value.
        absolute: rank |values|, so that nothing has to be materialised.
        alive: bool in the units' shape: units not pruned before; None if all are. The others stay pruned.
        protected: bool in the units' shape: units that go only after all others; None if there are none.
        weights: weights per unit, one int for all or a tensor in the units' shape.
        threshold: the weight's threshold so far.
        living: how many units are alive, where that is known; of the whole.
        shard: of which whole the units are a piece; None where they are all.
    """

    name: str
    values: Tensor
    absolute: bool = False
    alive: Tensor | None = None
    protected: Tensor | None = None
    weights: int | Tensor = 1
    threshold: float = 0.0
    living: int | None = None
    shard: Shard | None = None

    @property
    def size(self) -> int:
        """How many units there are, of the whole."""
        return self.values.numel() if self.shard is None else self.shard.size

    def known(self, which: Tensor | None) -> bool:
        """Whether `held` says of a piece what it is of the whole."""
        return which is None or (which is self.alive and self.living is not None)

    def scores(self) -> Tensor:
        """Return the scores as a tensor. Raises ValueError that names the weight if one is not finite."""
        check_finite([self])
        return self.values.abs() if self.absolute else self.values

    def held(self, which: Tensor | None) -> int | Tensor:
        """Return how many weights the units hold, or those named by `which`; as a tensor where that is on a device.

        Of a piece it is what `which` names here, but for all and for those that are alive.
        """
        each = self.weights
        if isinstance(each, Tensor):
            if which is None:
                return int(each.sum())
            total = (each.to(which.device, non_blocking=True) * which).sum()
            return int(total) if which.device.type == "cpu" else total
        if which is None:
            return each * self.size
        if which is self.alive and self.living is not None:
            return each * self.living
        return each * count(which) if which.device.type == "cpu" else which.count_nonzero() * each


def non_finite(name: str) -> ValueError:
    """Return the error for a score that is NaN or infinite."""
    return ValueError(
        f"a pruning score of '{name}' is not finite, so its weights cannot be ranked; "
        "look for a diverged loss or an overflow before this step"
    )


def check_finite(pool: Sequence[Units]) -> None:
    """Raise ValueError that names the first weight with a score that is not finite; one look at the device for all."""
    check_found([(units.name, ends(units.values)) for units in pool], shards_of(pool))


def check_found(
    finite: Sequence[tuple[str, Tensor]],
    shards: Sequence[Shard | None] = (),
    error: Callable[[str], ValueError] = non_finite,
) -> None:
    """Raise the same for names and the ends of the scores of that weight; those on a device are read together.

    Of pieces of the given wholes the error is raised on all ranks, for the same weight.
    """
    good = [bool(found.isfinite().all()) for found in on_host([pair for _, pair in finite])]
    first = len(good) - good.index(False) if False in good else 0  # from the last: so the largest is the first
    (last,) = highest([first], shards)
    if last:
        raise error(finite[len(finite) - last][0])


def held(pool: Sequence[Units], which: Sequence[Tensor | None]) -> list[int]:
    """Return how many weights each member's units hold, or those named by `which`: one synchronization for all.

    Args:
        pool: units.
        which: bool in the units' shapes; None for all.
    """
    found = [units.held(some) for units, some in zip(pool, which, strict=True)]
    numbers = iter(read([number for number in found if isinstance(number, Tensor)]))
    here = [next(numbers) if isinstance(number, Tensor) else number for number in found]
    asked = [n for n, units in enumerate(pool) if units.shard is not None and not units.known(which[n])]
    for n, number in zip(asked, each([here[n] for n in asked], [pool[n].shard for n in asked]), strict=True):
        here[n] = number
    return here


def shards_of(pool: Sequence[Units]) -> list[Shard | None]:
    """Return of which whole each member's units are a piece."""
    return [units.shard for units in pool]


def is_split(pool: Sequence[Units]) -> bool:
    """Return whether units of some member are pieces."""
    return any(units.shard is not None for units in pool)


def common(pool: Sequence[Units]) -> tuple[list[Tensor], bool]:
    """Return the members' values in one dtype, and whether they are ranked by their absolute value."""
    dtype = reduce(torch.promote_types, (u.values.dtype for u in pool))
    absolute = all(u.absolute for u in pool)
    return [(u.values.abs() if u.absolute and not absolute else u.values).to(dtype) for u in pool], absolute


class Selection(Protocol):
    """From scores and counts to masks."""

    @property
    def exact(self) -> bool:
        """Whether exactly `drop` weights go, as closely as whole units allow, protected units last."""
        ...

    def __call__(self, pool: Sequence[Units], drop: int, sparsity: float) -> tuple[list[Tensor], float]:
        """Return for each member which units to keep (bool, the units' shape), and the new threshold."""
        ...


@runtime_checkable
class SelectionOfEach(Protocol):
    """A selection that answers for several pools at once, so that a device is waited for as often as for one."""

    def of_each(
        self, pools: Sequence[Sequence[Units]], drops: Sequence[int], sparsities: Sequence[float]
    ) -> list[tuple[list[Tensor], float]]:
        """Return for each pool what the selection gives for it alone."""
        ...
