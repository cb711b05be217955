"""Which layers are faster in CSR, with the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lightning_prune.report import columns, percent


@dataclass(frozen=True)
class CsrLayer:
    """One layer with a weight of two or more dimensions.

    Attributes:
        name: dotted name.
        shape: of its weight.
        sparsity: the share of its weights that is zero.
        reason: why it stays dense; None if it was converted.
        dense_ms: milliseconds of a call with the dense weight; None where nothing was timed.
        csr_ms: the same with the CSR weight.
    """

    name: str
    shape: tuple[int, ...]
    sparsity: float
    reason: str | None
    dense_ms: float | None = None
    csr_ms: float | None = None


@dataclass(frozen=True)
class Csr:
    """A model whose sparse linear layers are in CSR where that is faster, here and for this batch.

    Attributes:
        model: a copy on the CPU, in evaluation mode, for inference.
        layers: every layer, in the model's order, with the reason if it stays dense.
        batch: how many examples a forward had that was timed.
        threads: how many threads of the CPU torch used.
        dense_ms: milliseconds of a forward of the dense model; None where no layer was converted.
        csr_ms: the same of the copy.
    """

    model: nn.Module
    layers: Sequence[CsrLayer]
    batch: int
    threads: int
    dense_ms: float | None
    csr_ms: float | None

    @property
    def converted(self) -> list[str]:
        """The names of the layers that were converted."""
        return [layer.name for layer in self.layers if layer.reason is None]

    @property
    def gains(self) -> bool:
        """Whether the whole model is faster."""
        return self.dense_ms is not None and self.csr_ms is not None and self.csr_ms < self.dense_ms

    def table(self) -> str:
        """Return a table for people."""
        rows = [("layer", "shape", "sparsity", "dense, ms", "CSR, ms", "CSR")]
        for layer in self.layers:
            dense, csr = (f"{ms:.4f}" if ms is not None else "" for ms in (layer.dense_ms, layer.csr_ms))
            said = layer.reason or f"converted, {_times(layer.dense_ms, layer.csr_ms)} as fast"
            shape = "x".join(map(str, layer.shape))
            rows.append((layer.name or "(the model itself)", shape, percent(layer.sparsity), dense, csr, said))
        if self.dense_ms is not None and self.csr_ms is not None:
            whole = f"{_times(self.dense_ms, self.csr_ms)} as fast"
            rows.append(("the whole model", "", "", f"{self.dense_ms:.4f}", f"{self.csr_ms:.4f}", whole))
        ends = {1, len(rows) - 1} if self.dense_ms is not None else {1}
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        how = f"measured here, batches of {self.batch}, on {threads}; the least of short blocks, in turns"
        return f"{columns(rows, rules=ends)}\n{how}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the model."""
        return {
            "converted": self.converted,
            "batch": self.batch,
            "threads": self.threads,
            "dense_ms": self.dense_ms,
            "csr_ms": self.csr_ms,
            "layers": [asdict(layer) | {"shape": list(layer.shape)} for layer in self.layers],
        }


def _times(dense_ms: float | None, csr_ms: float | None) -> str:
    return f"{dense_ms / csr_ms:.2f} times" if dense_ms and csr_ms else ""
