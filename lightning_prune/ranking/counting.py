"""The smallest of many values by counting bits: on any device, in chunks, with few synchronizations.

Whatever the number of tensors, the host reads from the device once for each digit of the boundary, and once more for
what it has to know of the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from lightning_prune.ranking import float_keys
from lightning_prune.ranking.chunks import Chunk, Piece, chunks_of, flat, put, take
from lightning_prune.ranking.counts import read
from lightning_prune.ranking.digits import Found, Run, kth_of_each
from lightning_prune.ranking.float_keys import NotFiniteError
from lightning_prune.shards import Kind, Shard, each, highest, kind


@dataclass(frozen=True)
class Contest:
    """Values of which the smallest go.

    Attributes:
        values: floats of one dtype.
        contenders: bool in the values' shapes, which of them take part; None means all.
        drop: how many go, at least 1 and at most as many as contend.
        contending: how many contend in all.
        absolute: rank |values|.
        shards: of which wholes the values are pieces, where they are; empty if none is.
    """

    values: Sequence[Tensor]
    contenders: Sequence[Tensor | None]
    drop: int
    contending: int
    absolute: bool
    shards: Sequence[Shard | None] = ()

    @property
    def size(self) -> int:
        """How many values there are, on all ranks."""
        return sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """How many values each tensor has, on all ranks."""
        return [v.numel() if s is None else s.size for v, s in zip(self.values, self.pieces, strict=True)]

    @property
    def pieces(self) -> Sequence[Shard | None]:
        """Of which whole each tensor is a piece."""
        return self.shards or [None] * len(self.values)

    @property
    def split(self) -> bool:
        """Whether some of the values are pieces."""
        return any(shard is not None for shard in self.shards)

    @property
    def chunks(self) -> list[Chunk]:
        """All values of this rank."""
        return chunks_of(self.values, [kind(shard) for shard in self.shards])

    def run(self, chunks: Sequence[Chunk]) -> Run:
        """Return the keys by which chunks are ranked."""
        pieces = self.pieces
        kinds = [kind(pieces[chunk[0].index]) for chunk in chunks]
        return Run([partial(self.ranked, chunk) for chunk in chunks], self.size, self.drop + self.dead, kinds)

    @property
    def places(self) -> list[tuple[torch.device, Kind]]:
        """Where values lie, and the groups over which they add up, on any rank."""
        return [(v.device, kind(s)) for v, s in zip(self.values, self.shards, strict=True)] if self.split else []

    @property
    def dead(self) -> int:
        """How many do not contend."""
        return self.size - self.contending

    @property
    def width(self) -> int:
        """How many bits a key has."""
        return 8 * self.values[0].element_size() - self.absolute

    @property
    def lowest(self) -> int:
        """What no key is below: those that do not contend are put there, the first to go."""
        return 0 if self.absolute else -(1 << (self.width - 1))

    def keys(self, chunk: Chunk) -> Tensor:
        """Return the keys of all values of a chunk, in memory of their own."""
        return float_keys.keys(take(self.values, chunk), self.absolute, own=len(chunk) > 1)

    def ranked(self, chunk: Chunk) -> Tensor:
        """Return the keys by which a chunk is ranked."""
        return self.lower(self.keys(chunk), self.contend(chunk))

    def lower(self, keys: Tensor, contend: Tensor | None) -> Tensor:
        """Put those that do not contend at the lowest."""
        if contend is None:
            return keys
        return keys.mul_(contend) if self.absolute else keys.masked_fill_(contend.logical_not(), self.lowest)

    def contend(self, chunk: Chunk) -> Tensor | None:
        """Return who contends in a chunk; None if all do."""
        if all(self.contenders[piece.index] is None for piece in chunk):
            return None
        parts = [self._contend(piece) for piece in chunk]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _contend(self, piece: Piece) -> Tensor:
        some = self.contenders[piece.index]
        if some is not None:
            return flat(some, piece)
        return self.values[piece.index].new_ones(1, dtype=torch.bool).expand(piece.end - piece.start)

    def going(self, found: Found) -> int:
        """Return how many contenders go of those equal to a boundary."""
        return self.drop if found.value == self.lowest else self.drop - (found.less - self.dead)


@dataclass(frozen=True)
class Outcome:
    """Who stays in a contest.

    Attributes:
        masks: bool in the values' shapes.
        boundary: the key of the largest value that went.
        kept: how many stay in each tensor, on all ranks, not counting those equal to the boundary; empty if not asked
            for.
    """

    masks: list[Tensor]
    boundary: int
    kept: list[int]


@dataclass(frozen=True)
class _Written:
    """Masks as if all that equal the boundary went, and numbers that wait on the device, some for each chunk."""

    masks: list[Tensor]
    extremes: list[Tensor]
    equal: list[Tensor]
    kept: list[Tensor]


def decide(contests: Sequence[Contest], counted: bool = False) -> list[Outcome]:
    """Return who stays in each of several contests; of equal values the later one goes first.

    Args:
        contests: of one dtype, and either all by the absolute value or none.
        counted: whether to count how many stay in each tensor.

    Raises:
        NotFiniteError: one of the values is NaN or infinite; the error says in which tensor of which contest.
    """
    cut = [contest.chunks for contest in contests]
    runs = [contest.run(chunks) for contest, chunks in zip(contests, cut, strict=True)]
    places = list(dict.fromkeys(place for contest in contests for place in contest.places))
    found = kth_of_each(runs, contests[0].lowest, contests[0].width, places)
    written = [_written(*each, counted) for each in zip(contests, cut, found, strict=True)]
    numbers = iter(read([n for made in written for n in (*made.extremes, *made.equal, *made.kept)]))
    outcomes: list[Outcome] = []
    worst: list[int] = []
    for contest, chunks, boundary, made in zip(contests, cut, found, written, strict=True):
        extremes, equal, kept = ([next(numbers) for _ in some] for some in (made.extremes, made.equal, made.kept))
        worst.append(_not_finite(contest, chunks, extremes))
        if not contest.split:
            _keep_first_of_equal(contest, chunks, boundary, equal, made.masks)
        outcomes.append(Outcome(made.masks, boundary.value, kept))
    shards = [shard for contest in contests for shard in contest.pieces]
    for number, (contest, last) in enumerate(zip(contests, highest(worst, shards), strict=True)):
        if last:
            raise NotFiniteError(len(contest.values) - last, number)
    if any(contest.split for contest in contests):
        _keep_first_over_pieces(contests, found, outcomes)
        kept = iter(each([few for outcome in outcomes for few in outcome.kept], shards if counted else ()))
        outcomes = [replace(outcome, kept=[next(kept) for _ in outcome.kept]) for outcome in outcomes]
    return outcomes


def _written(contest: Contest, chunks: Sequence[Chunk], boundary: Found, counted: bool) -> _Written:
    masks = [torch.empty(v.shape, dtype=torch.bool, device=v.device) for v in contest.values]
    made = _Written(masks, [], [], [])
    tied = boundary.equal > contest.going(boundary) and not contest.split  # of pieces, all ranks have to be asked
    for chunk in chunks:
        keys, contend = contest.keys(chunk), contest.contend(chunk)
        made.extremes.append(keys.max())
        if not contest.absolute:
            made.extremes.append(keys.min())
        keys = contest.lower(keys, contend)
        put(keys > boundary.value, masks, chunk)
        if tied:
            made.equal.append(_equal(keys, boundary, contend).count_nonzero())
    made.kept.extend(mask.count_nonzero() for mask in masks if counted)
    return made


def _equal(keys: Tensor, boundary: Found, contend: Tensor | None) -> Tensor:
    equal = keys == boundary.value
    return equal if contend is None else equal.logical_and_(contend)


def _not_finite(contest: Contest, chunks: Sequence[Chunk], extremes: Sequence[int]) -> int:
    """Return which tensor is the first with a key beyond that of the largest finite value, counted from the last: or 0.

    From the last, 1, so that the largest number of several ranks is the first tensor of all.
    """
    limit = float_keys.highest(contest.values[0].dtype)
    each = len(extremes) // max(1, len(chunks))
    for c, chunk in enumerate(chunks):
        if all(abs(key) <= limit for key in extremes[c * each : (c + 1) * each]):
            continue
        for piece in chunk:
            if int(contest.keys([piece]).abs().max()) > limit:
                return len(contest.values) - piece.index
    return 0


def _keep_first_of_equal(
    contest: Contest, chunks: Sequence[Chunk], boundary: Found, equal: Sequence[int], masks: Sequence[Tensor]
) -> None:
    """Have the first of those stay that are equal to a boundary, as many as do not have to go."""
    staying = sum(equal) - contest.going(boundary) if equal else 0
    for chunk, number in zip(chunks, equal, strict=False):
        few = min(staying, number)
        if few <= 0:
            continue
        contend = contest.contend(chunk)
        keys = contest.lower(contest.keys(chunk), contend)
        stay = _equal(keys, boundary, contend)
        if few < number:
            stay &= stay.cumsum(0, dtype=torch.int32) <= few
        put(stay.logical_or_(keys > boundary.value), masks, chunk)
        staying -= few


def _keep_first_over_pieces(contests: Sequence[Contest], found: Sequence[Found], outcomes: Sequence[Outcome]) -> None:
    """Have the first of those stay that are equal to a boundary, where values are pieces: first in the wholes."""
    tied = [
        (contest, boundary, outcome)
        for contest, boundary, outcome in zip(contests, found, outcomes, strict=True)
        if contest.split and boundary.equal > contest.going(boundary)
    ]
    equal = [_equal_of_each(contest, boundary) for contest, boundary, _ in tied]
    shards = [shard for contest, _, _ in tied for shard in contest.pieces]
    numbers = iter(each([flags.count_nonzero() for some in equal for flags in some], shards))
    for (contest, boundary, outcome), flags in zip(tied, equal, strict=True):
        number = sum(next(numbers) for _ in flags)
        _stay(contest, flags, number, number - contest.going(boundary), outcome.masks)


def _equal_of_each(contest: Contest, boundary: Found) -> list[Tensor]:
    """Return which contenders of this rank are equal to a boundary."""
    flags = [torch.zeros(v.shape, dtype=torch.bool, device=v.device) for v in contest.values]
    for chunk in contest.chunks:
        contend = contest.contend(chunk)
        put(_equal(contest.lower(contest.keys(chunk), contend), boundary, contend), flags, chunk)
    return flags


def _stay(contest: Contest, flags: Sequence[Tensor], equal: int, staying: int, masks: Sequence[Tensor]) -> None:
    """Have the first `staying` of the `equal` flags of all ranks stay, by tensor and then by place in its whole."""
    if staying <= 0:
        return
    starts = accumulate(contest.sizes[:-1], initial=0)
    places = [
        start + (some.flatten().nonzero().flatten() if shard is None else shard.positions(some))
        for start, some, shard in zip(starts, flags, contest.pieces, strict=True)
    ]
    run = Run([place.clone for place in places], equal, staying, [kind(shard) for shard in contest.pieces])
    (last,) = kth_of_each([run], 0, max(1, contest.size.bit_length()), list(dict.fromkeys(contest.places)))
    for mask, some, place in zip(masks, flags, places, strict=True):
        at = some.flatten().nonzero().flatten()[place <= last.value]
        mask.view(-1)[at] = True
