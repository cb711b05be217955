"""How the values of a weight lie, in bins as wide as a power of two, so that any two histograms share their edges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved

_BINS = 64
_REACH = 6.0
"""In standard deviations: what lies further from the mean counts in the outermost bin."""
_CHUNK, _SAMPLE, _ENOUGH = 1 << 17, 1 << 19, 1 << 10


@dataclass(frozen=True)
class Histogram:
    """Counts of the values that are neither zero nor infinite.

    Attributes:
        exponent: a bin is 2**exponent wide.
        first: the first bin begins at `first` times that.
        counts: of each bin.
    """

    exponent: int
    first: int
    counts: tuple[int, ...]

    @property
    def width(self) -> float:
        """How wide a bin is."""
        return 2.0**self.exponent

    @property
    def edges(self) -> list[float]:
        """The edges of the bins, one more than there are bins."""
        return [(self.first + i) * self.width for i in range(len(self.counts) + 1)]

    def coarser(self, exponent: int) -> Histogram:
        """Return the same in wider bins, exactly: their edges are among those of the narrower."""
        by = 1 << (exponent - self.exponent)
        first, last = self.first // by, (self.first + len(self.counts) - 1) // by
        counts = [0] * (last - first + 1)
        for index, number in enumerate(self.counts):
            counts[(self.first + index) // by - first] += number
        return Histogram(exponent, first, tuple(counts))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)


def histogram(values: Tensor) -> Histogram | None:
    """Return the histogram of a tensor's values, chunk by chunk; None where all are zero or not finite."""
    flat = values.detach().reshape(-1)
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    if not bool(flat.sum().isfinite()):
        flat = flat[flat.isfinite()]
    left = _sample(flat)
    if not len(left):
        return None
    low, high = (float(end) for end in flat.aminmax())
    mean, reach = float(left.mean()), _REACH * float(left.std(unbiased=False))
    low, high = max(low, mean - reach), min(high, mean + reach)
    exponent = _exponent(high - low, max(abs(low), abs(high)))
    first, last = (math.floor(end / 2.0**exponent) for end in (low, high))
    counts = torch.zeros(last - first + 1, dtype=torch.int64)
    if abs(exponent) > 100:  # beyond what single precision holds
        flat = flat.double()
    for start in range(0, flat.numel(), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        places = (chunk * 2.0**-exponent).floor_().clamp_(first, last).sub_(first).int()
        counts += torch.bincount(places, minlength=len(counts)).cpu()
    zeros = flat.numel() - int(flat.count_nonzero())
    counts[min(max(0, first), last) - first] -= zeros
    return Histogram(exponent, first, tuple(counts.tolist()))


def read(where: str, found: Any) -> Histogram:
    """Return a histogram from plain values. Raises ValueError if it is damaged."""
    values: Mapping[str, Any] = saved.mapping(where, found)
    counts = saved.sequence(f"{where}.counts", saved.at(where, values, "counts"))
    if not 0 < len(counts) <= 4 * _BINS:
        raise ValueError(f"{where}.counts has {len(counts)} bins; it must have 1 to {4 * _BINS}")
    return Histogram(
        saved.integer(f"{where}.exponent", saved.at(where, values, "exponent"), -1100, 1000),
        saved.integer(f"{where}.first", saved.at(where, values, "first"), -saved.MOST),
        tuple(saved.integer(f"{where}.counts", each) for each in counts),
    )


def _exponent(span: float, largest: float) -> int:
    """Return the exponent at which a span takes no more than the bins there are; of one value a small share of it."""
    span = max(span, largest * 2.0**-10)
    return max(-1000, math.ceil(math.log2(span / _BINS)))


def _sample(flat: Tensor) -> Tensor:
    """Return values that are not zero: all, or of very many some, evenly."""
    for step in (max(1, flat.numel() // _SAMPLE), 1):
        left = flat[::step]
        left = left[left != 0].double()
        if len(left) >= _ENOUGH:
            break
    return left
