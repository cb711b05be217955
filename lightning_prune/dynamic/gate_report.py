"""What gates leave out, in numbers: channels an example, and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_prune.dynamic.counting import Counted
from lightning_prune.report import Report, WeightReport, columns, percent

_STATIC = (
    "no weight is zero and none can be taken out: which channels an example goes without depends on it, and torch's "
    "own kernels compute them all"
)


@dataclass(frozen=True)
class GateReport(Report):
    """The state of a gated model, as a `Report` whose weights are gated layers.

    A layer's size is its channels, its zeros those that each example goes without, exactly; so `sparsity` is the share
    of all gated channels that an example goes without. Parameters are those of the model without its gates.

    Attributes:
        predictors: how many parameters the gates have.
        counted: multiply-adds of an example; None where they could not be counted.
    """

    predictors: int = 0
    counted: Counted | None = None

    @property
    def starved(self) -> list[WeightReport]:
        """None: every layer keeps what the schedule says."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        facts = {"predictor_parameters": self.predictors, "weights_that_are_zero": 0}
        counted = None if self.counted is None else self.counted.to_dict()
        return super().to_dict() | {"dynamic": facts | {"macs": counted}}

    def scalars(self) -> dict[str, float]:
        """Return flat numbers for a logger."""
        numbers = {"sparsity": self.sparsity, "target_sparsity": self.target_sparsity}
        numbers |= {f"sparsity/{weight.name}": weight.sparsity for weight in self.weights}
        if self.counted is not None:
            numbers |= {"macs/dense": self.counted.dense, "macs/an example at most": self.counted.total}
        return numbers

    def plan(self) -> str:
        """Return a table of what will be gated, and what not and why."""
        rows = [("gated layer", "channels", "without, in the end")]
        rows += [
            (w.name, str(w.size), percent(self.final_sparsity if w.final_sparsity is None else w.final_sparsity))
            for w in self.weights
        ]
        rows.append(("all gated", f"{self.size:,}", percent(self.final_sparsity)))
        return "\n".join([columns(rows, rules={1, len(rows) - 1}), *self._footer(planned=True)])

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [("gated layer", "channels", "an example keeps", "goes without", "dense MACs", "at most")]
        for w in self.weights:
            layer = w.name.rpartition(".")[0]
            both = None if self.counted is None else self.counted.layers.get(layer)
            dense, most = ("", "") if both is None else (f"{both[0]:,.0f}", f"{both[1]:,.0f}")
            rows.append((w.name, str(w.size), str(w.size - w.zeros), percent(w.sparsity), dense, most))
        kept = f"{self.size - self.zeros:,}"
        return [*rows, ("all gated", f"{self.size:,}", kept, percent(self.sparsity), "", "")]

    def _footer(self, planned: bool = False) -> list[str]:
        counted = list(self.notes) if planned else [] if self.counted is None else [str(self.counted)]
        parameters = f"{self.parameters:,} parameters, {self.predictors:,} more in the predictors"
        return [parameters, *counted, _STATIC, *self.left_whole()]
