"""What a compact file takes, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.report import columns


@dataclass(frozen=True)
class CompactTensor:
    """One tensor of a compact file.

    Attributes:
        name: dotted name.
        shape: its shape.
        encoding: "dense", "bitmask" or "gaps", or the name of the tensor that it is one with.
        values: how many entries are written.
        dense_bytes: what it takes in memory; 0 where it is one with another.
        bytes: what it takes in the file, without its line in the header.
        negative_zeros: how many of the values are -0.0, which is written like any other.
    """

    name: str
    shape: tuple[int, ...]
    encoding: str
    values: int
    dense_bytes: int
    bytes: int
    negative_zeros: int = 0


@dataclass(frozen=True)
class Compact:
    """A compact file that was written.

    Attributes:
        file: where it is.
        bytes: of the whole file.
        tensors: each one, in the model's order.
    """

    file: Path
    bytes: int
    tensors: tuple[CompactTensor, ...]

    @property
    def dense_bytes(self) -> int:
        """What the tensors take when dense, tied ones once, without a header."""
        return sum(tensor.dense_bytes for tensor in self.tensors)

    @property
    def times_smaller(self) -> float:
        """How many times the dense bytes are the file's."""
        return self.dense_bytes / self.bytes

    def table(self) -> str:
        """Return a table for people."""
        rows = [("tensor", "shape", "values", "dense, bytes", "bytes", "written as")]
        for each in self.tensors:
            shape = "x".join(map(str, each.shape))
            rows.append(
                (each.name, shape, f"{each.values:,}", f"{each.dense_bytes:,}", f"{each.bytes:,}", each.encoding)
            )
        rows.append(("the file", "", "", f"{self.dense_bytes:,}", f"{self.bytes:,}", f"{self.times_smaller:.1f} times"))
        signed = sum(tensor.negative_zeros for tensor in self.tensors)
        note = (
            f"\n{signed:,} of the values are -0.0, which weight * mask leaves; weight + 0.0 has none" if signed else ""
        )
        return columns(rows, rules={1, len(rows) - 1}) + note

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "file": str(self.file),
            "dense_bytes": self.dense_bytes,
            "bytes": self.bytes,
            "times_smaller": self.times_smaller,
            "tensors": [vars(tensor) | {"shape": list(tensor.shape)} for tensor in self.tensors],
        }
