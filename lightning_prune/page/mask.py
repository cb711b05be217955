"""The mask of a weight as a small picture: which share of each of its patches is left."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved

_ROWS, _COLUMNS, _LEVELS = 64, 96, 15
_DIGITS = "0123456789abcdef"
_BLUE = (59, 130, 196)
"""Of middling lightness, so that it stands out on white and on black."""


@dataclass(frozen=True)
class Mask:
    """What is left of a weight, as outputs x inputs: those of a kernel lie beside each other.

    Attributes:
        shape: rows and columns of the weight.
        left: rows and columns that have anything left.
        levels: a line for each row of patches, a hexadecimal digit for each: the share left, in fifteenths.
    """

    shape: tuple[int, int]
    left: tuple[int, int]
    levels: tuple[str, ...]

    @property
    def patches(self) -> tuple[int, int]:
        """How many rows and columns the picture has."""
        return len(self.levels), len(self.levels[0])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    def png(self) -> str:
        """Return the picture as a data URI: one colour, the more opaque the more is left. Needs Pillow."""
        from PIL import Image

        rows, columns = self.patches
        picture = Image.new("P", (columns, rows))
        picture.putdata([_DIGITS.index(digit) for line in self.levels for digit in line])
        picture.putpalette([part for _ in range(_LEVELS + 1) for part in _BLUE])
        stream = io.BytesIO()
        opacity = bytes(round(255 * level / _LEVELS) for level in range(_LEVELS + 1))
        picture.save(stream, "PNG", transparency=opacity, optimize=True, bits=4)
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def mask(weight: Tensor) -> Mask:
    """Return what is left of a weight: its entries that are not zero."""
    rows = weight.detach().reshape(len(weight), -1) if weight.dim() > 1 else weight.detach().reshape(1, -1)
    height, width = rows.shape
    columns = torch.tensor(edges(width, _COLUMNS))
    alive_rows, alive_columns = 0, torch.zeros(width, dtype=torch.bool)
    lines: list[str] = []
    bands = edges(height, _ROWS)
    for start, end in pairwise(bands):
        left = rows[start:end] != 0
        alive_rows += int(left.any(1).sum())
        counts = left.view(torch.uint8).sum(0, dtype=torch.int32).cpu()
        alive_columns |= counts > 0
        sums = torch.cat([torch.zeros(1, dtype=counts.dtype), counts.cumsum(0)])[columns].diff()
        shares = sums.double() / ((end - start) * columns.diff())
        levels = (shares * _LEVELS).ceil() if len(columns) == width + 1 else (shares * _LEVELS).round()
        lines.append("".join(_DIGITS[int(level)] for level in levels))
    return Mask((height, width), (alive_rows, int(alive_columns.sum())), tuple(lines))


def edges(size: int, most: int) -> list[int]:
    """Return where patches begin and end that part so many entries as evenly as can be, into no more than `most`."""
    number = min(size, most)
    return [i * size // number for i in range(number + 1)]


def read(where: str, found: Any) -> Mask:
    """Return a mask from plain values. Raises ValueError if it is damaged."""
    values: Mapping[str, Any] = saved.mapping(where, found)
    lines = [saved.text(f"{where}.levels", each) for each in saved.sequence(f"{where}.levels", values.get("levels"))]
    if not lines or not lines[0] or len(lines) > _ROWS or any(len(line) != len(lines[0]) for line in lines):
        raise ValueError(f"{where}.levels must hold 1 to {_ROWS} lines of one length")
    if len(lines[0]) > _COLUMNS or not set("".join(lines)) <= set(_DIGITS):
        raise ValueError(f"{where}.levels must hold up to {_COLUMNS} hexadecimal digits a line")
    return Mask(_pair(f"{where}.shape", values.get("shape")), _pair(f"{where}.left", values.get("left")), tuple(lines))


def _pair(where: str, found: Any) -> tuple[int, int]:
    pair = saved.sequence(where, found)
    if len(pair) != 2:
        raise ValueError(f"{where} has {len(pair)} numbers; it must have two")
    return saved.integer(where, pair[0]), saved.integer(where, pair[1])
