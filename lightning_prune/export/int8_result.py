"""What came out of an export with weights of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_prune.report import columns


@dataclass(frozen=True)
class Int8Weight:
    """One weight of two or more dimensions.

    Attributes:
        name: dotted name; of a shared weight the first.
        shape: its shape.
        reason: why it stays float; None if it has 8 bits.
        zeros: how many of its entries are zero in the model.
        zeros_in_file: and in the file; more where what was tiny beside the largest of its output channel became zero.
            None for a weight that stays float, whose values stay as they are.
    """

    name: str
    shape: tuple[int, ...]
    reason: str | None
    zeros: int
    zeros_in_file: int | None


@dataclass(frozen=True)
class Int8Export:
    """What was written.

    Attributes:
        file: where.
        bytes: its size.
        difference: largest difference of the quantized model's outputs from the float model's on the calibration
            batches, as a share of the largest output of a batch.
        parity: the same between onnxruntime and torch, both with 8 bits.
        weights: every weight of two or more dimensions, in the model's order, with the reason if it stays float.
    """

    file: Path
    bytes: int
    difference: float
    parity: float
    weights: Sequence[Int8Weight]

    @property
    def quantized(self) -> list[str]:
        """The names of the weights that have 8 bits."""
        return [weight.name for weight in self.weights if weight.reason is None]

    @property
    def zeros(self) -> int:
        """How many entries of the weights that have 8 bits were zero before."""
        return sum(weight.zeros for weight in self.weights if weight.reason is None)

    @property
    def zeros_in_file(self) -> int:
        """How many are zero in the file, those among them."""
        return sum(weight.zeros_in_file or 0 for weight in self.weights)

    def table(self) -> str:
        """Return a table for people."""
        rows = [("weight", "shape", "zeros", "in the file", "8 bits")]
        for each in self.weights:
            in_file = "" if each.zeros_in_file is None else f"{each.zeros_in_file:,}"
            said = "yes" if each.reason is None else each.reason
            rows.append((each.name, "x".join(map(str, each.shape)), f"{each.zeros:,}", in_file, said))
        return columns(rows, rules={1})
