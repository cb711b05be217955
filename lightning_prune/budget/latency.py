"""The milliseconds of a forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lightning_prune import given
from lightning_prune.budget.protocol import Price
from lightning_prune.cost.latency_table import LatencyTable
from lightning_prune.cost.layer_times import measure_latency
from lightning_prune.targets import plain_name


@dataclass(frozen=True)
class Latency:
    """The sparsity is the share of a forward's milliseconds that goes, by a table that is measured once.

    The table has the time of each layer by how many units it computes and reads, measured at a few widths when pruning
    starts, where the model is; between them it is read on a line. `Polynomial(0.5, ...)` halves the sum over layers. A
    run saves its table with its state and goes on with it; on several processes all have that of the first. For
    `pattern=Channel()`: a single zero saves no time.

    With `speedup=2` the smaller model itself is measured: before training the least sparsity is searched at which a
    copy, pruned along the schedule and made smaller, runs twice as fast as the model. It takes the place of the
    schedule's final sparsity, unless that is 0.

    Args:
        table: one that was measured before, by `lightning_prune.cost.measure_latency`; or the JSON file that holds it,
            which is written where it is not there yet. None to measure one for this run.
        batch: how many examples a forward has; None for as many as the example inputs have, or as the table says.
        threads: with how many threads of the CPU; None for as many as torch uses, or as the table says.
        speedup: how many times as fast a forward is to be; None to go by the table.
        by_cost: rank units by their worth for each millisecond that goes with them, so that fewer go in all.

    Raises:
        ValueError: an argument is out of range, or does not go with the table.
    """

    table: LatencyTable | str | None = None
    batch: int | None = None
    threads: int | None = None
    speedup: float | None = None
    by_cost: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "threads"):
            value = getattr(self, name)
            if value is not None:
                given.whole(name, value, 1, hint=", or None")
        if self.speedup is not None:
            given.number("speedup", self.speedup, above=1, hint="; 2 halves the time")
        given.flag("by_cost", self.by_cost)
        if isinstance(self.table, LatencyTable):
            self._check(self.table)
        elif self.table is not None and not isinstance(self.table, str):
            raise ValueError(f"table={self.table!r} must be a LatencyTable, the path of a file, or None")

    @property
    def is_measured(self) -> bool:
        """Whether there is a table already, here or in its file."""
        return isinstance(self.table, LatencyTable) or (self.table is not None and Path(self.table).exists())

    def measured(self, model: nn.Module, example_inputs: Any) -> Latency:
        """Return the same with its table: as it is, from its file, or measured here and now and written there.

        Raises:
            ValueError: it cannot be measured, the file is damaged, or it was measured of another model, with another
                batch or with other threads.
        """
        table = self.table
        if not isinstance(table, LatencyTable):
            if table is not None and Path(table).exists():
                found = LatencyTable.load(table)
            else:
                found = measure_latency(model, example_inputs, self.batch, self.threads)
                if table is not None:
                    found.save(table)
            self._check(found)
            table = found
        _check_model(table, model)
        return replace(self, table=table)

    def measurements(self) -> dict[str, Any]:
        """Return the table as plain values. Raises ValueError where there is none."""
        if not isinstance(self.table, LatencyTable):
            raise ValueError(f"{self} has no table yet")
        return self.table.to_dict()

    def knowing(self, measurements: Mapping[str, Any]) -> Latency:
        """Return the same with a table that `measurements` has given. Raises ValueError if it is damaged."""
        return replace(self, table=LatencyTable.from_dict(measurements))

    def price(self, model: nn.Module, example_inputs: Any, shapes: Mapping[str, tuple[int, ...]]) -> Price:
        """Return the milliseconds of a forward, and those of each layer by how wide it is.

        Raises:
            ValueError: see `measured`; or the table knows none of the weights that units slice.
        """
        table = self.measured(model, example_inputs).table
        assert isinstance(table, LatencyTable)
        each = {layer.weight: layer for layer in table.layers if layer.weight in shapes}
        if not each:
            raise ValueError(
                f"the latency table knows {_some([layer.weight for layer in table.layers])}, and pruned are "
                f"{_some(list(shapes))}: measure one of this model"
            )
        return Price("ms", table.ms, each, dict(shapes), 3, f"by a table of layers: {table}")

    def _check(self, table: LatencyTable) -> None:
        """Raise ValueError if a table was measured with another batch or other threads than asked for."""
        for name in ("batch", "threads"):
            asked, found = getattr(self, name), getattr(table, name)
            if asked not in (None, found):
                raise ValueError(
                    f"{name}={asked}, and the latency table was measured with {name}={found}: leave {name} out, or "
                    "measure another table"
                )


def _check_model(table: LatencyTable, model: nn.Module) -> None:
    """Raise ValueError if a table is of another model."""
    shapes = {plain_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for layer in table.layers:
        shape = shapes.get(layer.weight)
        if shape is None:
            raise ValueError(f"the latency table has '{layer.weight}', which {type(model).__name__} has not")
        whole = [some[-1] for some in layer.lengths]
        if max(layer.dims) >= len(shape) or [shape[dim] for dim in layer.dims] != whole:
            raise ValueError(
                f"the latency table has '{layer.weight}' of length {whole} along dimensions {list(layer.dims)}, and in "
                f"{type(model).__name__} its shape is {shape}: measure another table"
            )


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "no layer") + more
