"""The exchange of an update: each layer drops some of what is left to it, and as many others return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_prune.ranking import Contest, NotFiniteError, counts, ends, keep_largest_of_each
from lightning_prune.selection import check_found, non_finite
from lightning_prune.shards import Shard, each


@dataclass(frozen=True)
class Exchange:
    """The units of one layer.

    Attributes:
        name: dotted name of the weight, for errors.
        values: of its units, in one tensor or in one for each expert; the smallest by |value| are dropped.
        keep: bool in those shapes: the units that the schedule leaves.
        worth: of the others, at least 0.
        shard: of which whole they are pieces; None where they are all.
    """

    name: str
    values: Sequence[Tensor]
    keep: Sequence[Tensor]
    worth: Sequence[Tensor]
    shard: Shard | None = None


def exchanged(layers: Sequence[Exchange], share: float) -> list[Sequence[Tensor]]:
    """Return for each layer which of its units stay or return; their number is that of `keep`.

    Of K units that are kept int(share K) are dropped, but no more than others have any worth; as many return, those
    that were dropped just now among them if nothing is worth more. Of equal ones the first stay, or return.

    Args:
        layers: of which nothing is written to.
        share: of what is kept, in [0, 1).

    Raises:
        ValueError: a value or a worth is not finite; the message names the weight.
    """
    check_found([(a.name, ends(some)) for a in layers for some in a.worth], [a.shard for a in layers for _ in a.worth])
    shards = [a.shard for a in layers for _ in a.keep]
    some = [flags for a in layers for flags in a.keep]
    others = [(worth > 0) & ~keep for a in layers for worth, keep in zip(a.worth, a.keep, strict=True)]
    found = iter(each(counts([*some, *others]), [*shards, *shards]))
    kept = [sum(next(found) for _ in a.keep) for a in layers]
    ready = [sum(next(found) for _ in a.keep) for a in layers]
    moving = [min(int(share * k), r) for k, r in zip(kept, ready, strict=True)]
    going = [n for n, number in enumerate(moving) if number]
    contests = [_contest(layers[n], layers[n].values, layers[n].keep, moving[n], kept[n]) for n in going]
    stay = dict(zip(going, _largest(layers, going, contests), strict=True))
    contests = [
        _contest(layers[n], layers[n].worth, [~keep for keep in stay[n]], size - kept[n], size - kept[n] + moving[n])
        for n, size in ((n, _size(layers[n])) for n in going)
    ]
    back = dict(zip(going, _largest(layers, going, contests), strict=True))
    return [
        [a | b for a, b in zip(stay[n], back[n], strict=True)] if n in back else layer.keep
        for n, layer in enumerate(layers)
    ]


def _size(layer: Exchange) -> int:
    return sum(keep.numel() for keep in layer.keep) if layer.shard is None else layer.shard.size


def _contest(layer: Exchange, values: Sequence[Tensor], among: Sequence[Tensor], drop: int, size: int) -> Contest:
    return Contest(values, among, drop, size, True, [layer.shard] * len(values))


def _largest(layers: Sequence[Exchange], going: Sequence[int], contests: Sequence[Contest]) -> list[list[Tensor]]:
    try:
        return [masks for masks, _ in keep_largest_of_each(contests)]
    except NotFiniteError as error:
        raise non_finite(layers[going[error.contest]].name) from None
