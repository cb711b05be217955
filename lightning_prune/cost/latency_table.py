"""How long the layers of a model take by how wide they are: measured once, read between, kept in a file."""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from lightning_prune import saved

VERSION = 1


@dataclass(frozen=True)
class LayerTimes:
    """How long one layer takes, by the length of one of its weights along one or two dimensions.

    Attributes:
        weight: name of that weight.
        dims: the dimensions along which it was made shorter.
        lengths: for each of them the lengths that were measured, ascending; the last is the whole.
        ms: milliseconds at each of them, those of the last dimension next to each other.
    """

    weight: str
    dims: tuple[int, ...]
    lengths: tuple[tuple[int, ...], ...]
    ms: tuple[float, ...]

    def __call__(self, left: Sequence[Any]) -> float:
        """Return the milliseconds with so many places left along each dimension of the weight.

        Between two lengths it is on the line through them, and below the least as much as there.
        """
        values: Sequence[float] = self.ms
        for dim, lengths in reversed(list(zip(self.dims, self.lengths, strict=True))):
            at, low = float(left[dim]), max(0, min(bisect_right(lengths, float(left[dim])), len(lengths) - 1) - 1)
            share = min(1.0, max(0.0, (at - lengths[low]) / (lengths[low + 1] - lengths[low])))
            rows = [values[start : start + len(lengths)] for start in range(0, len(values), len(lengths))]
            values = [(1.0 - share) * row[low] + share * row[low + 1] for row in rows]
        return values[0]

    def steepest(self, dim: int) -> float:
        """Return the most milliseconds that one place less along a dimension saves, wherever it is."""
        if dim not in self.dims:
            return 0.0
        own = self.dims.index(dim)
        grid = self._grid()
        found = [0.0]
        for (low, short), (high, long) in pairwise(enumerate(self.lengths[own])):
            for at in product(*(range(len(lengths)) for n, lengths in enumerate(self.lengths) if n != own)):
                ends = [grid[(*at[:own], place, *at[own:])] for place in (low, high)]
                found.append((ends[1] - ends[0]) / (long - short))
        return max(found)

    def _grid(self) -> dict[tuple[int, ...], float]:
        places = product(*(range(len(lengths)) for lengths in self.lengths))
        return dict(zip(places, self.ms, strict=True))


def never_slower(lengths: Sequence[int], ms: Sequence[float]) -> list[float]:
    """Return times on a grid, none longer than where a layer is wider: what else a machine does speeds nothing up.

    Args:
        lengths: how many points the grid has along each dimension.
        ms: the times, those of the last dimension next to each other.
    """
    places = list(product(*map(range, lengths)))
    least = dict(zip(places, ms, strict=True))
    for place in reversed(places):
        for dim in range(len(lengths)):
            wider = (*place[:dim], place[dim] + 1, *place[dim + 1 :])
            least[place] = min(least[place], least.get(wider, least[place]))
    return [least[place] for place in places]


@dataclass(frozen=True)
class LatencyTable:
    """How long a forward of a model takes, and each of its layers by how wide it is.

    Attributes:
        device: where it was measured.
        batch: how many examples a forward had.
        threads: with how many threads of the CPU.
        ms: milliseconds of a forward of the whole model.
        layers: those that lose units.
    """

    device: str
    batch: int
    threads: int
    ms: float
    layers: tuple[LayerTimes, ...] = field(repr=False)

    def __str__(self) -> str:
        """Return what was measured, in words."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"batch of {self.batch}, {threads}, {self.device}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON and checkpoints can hold."""
        return {"version": VERSION, **asdict(self), "layers": [asdict(layer) for layer in self.layers]}

    def save(self, file: str | Path) -> None:
        """Write the table as JSON, at once or not at all."""
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.unfinished")
        unfinished.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, file)

    @classmethod
    def load(cls, file: str | Path) -> LatencyTable:
        """Return the table in a file. Raises ValueError if it is damaged, or of a newer version."""
        return cls.from_dict(saved.load_json(Path(file)), str(file))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the latency table") -> LatencyTable:
        """Return a table from what `to_dict` has given. Raises ValueError if it is damaged, or of a newer version."""
        version = saved.at(where, values, "version")
        if version != VERSION:
            raise ValueError(f"{where} has version {version!r}, this lightning_prune reads {VERSION}")
        layers = saved.sequence(f"{where}: layers", saved.at(where, values, "layers"))
        return cls(
            saved.text(f"{where}: device", saved.at(where, values, "device")),
            saved.integer(f"{where}: batch", saved.at(where, values, "batch"), 1),
            saved.integer(f"{where}: threads", saved.at(where, values, "threads"), 1),
            _ms(f"{where}: ms", saved.at(where, values, "ms")),
            tuple(_layer(f"{where}: layers[{number}]", layer) for number, layer in enumerate(layers)),
        )


def _layer(where: str, found: Any) -> LayerTimes:
    values = saved.mapping(where, found)
    weight = saved.text(f"{where}: weight", saved.at(where, values, "weight"))
    dims = [saved.integer(f"{where}: dims", dim) for dim in _list(where, values, "dims")]
    lengths = [
        tuple(saved.integer(f"{where}: lengths", length, 1) for length in saved.sequence(f"{where}: lengths", some))
        for some in _list(where, values, "lengths")
    ]
    ms = tuple(_ms(f"{where}: ms", value) for value in _list(where, values, "ms"))
    rising = all(len(some) > 1 and all(a < b for a, b in pairwise(some)) for some in lengths)
    size = math.prod(map(len, lengths))
    if not dims or len(set(dims)) != len(dims) or len(dims) != len(lengths) or not rising or size != len(ms):
        raise ValueError(f"{where}: '{weight}' has {len(ms)} times for lengths {lengths} along {dims}: it is damaged")
    if list(ms) != never_slower([len(some) for some in lengths], ms):
        raise ValueError(f"{where}: '{weight}' takes longer where it is narrower: times must not fall with the lengths")
    return LayerTimes(weight, tuple(dims), tuple(lengths), ms)


def _list(where: str, values: Mapping[str, Any], key: str) -> list[Any]:
    return saved.sequence(f"{where}: {key}", saved.at(where, values, key))


def _ms(where: str, value: Any) -> float:
    return saved.number(where, value, 0.0, 1e12)
