"""What a model costs: parameters, multiply-adds, file size, milliseconds; and a smaller model beside the dense one."""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import call, example_of
from lightning_prune.macs import evaluation, macs
from lightning_prune.report import columns

_WARM_UP = 3


@dataclass(frozen=True)
class LayerCost:
    """One layer: a module that holds parameters or buffers, or that multiplies.

    Attributes:
        name: dotted name, "" for the model itself. Of a module with several names the first.
        kind: its class.
        parameters: how many entries its own parameters have; tied ones count where they come first.
        bytes: what its own tensors take in the state_dict.
        macs: multiply-adds of one forward, those of its submodules left out.
    """

    name: str
    kind: str
    parameters: int
    bytes: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        layers: every layer, in the model's order.
        file_bytes: size of its state_dict as `torch.save` writes it.
    """

    layers: Sequence[LayerCost]
    file_bytes: int

    @property
    def parameters(self) -> int:
        """How many entries all parameters have."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward."""
        return sum(layer.macs for layer in self.layers)

    def scalars(self) -> dict[str, float]:
        """Return flat numbers for a logger."""
        return {"parameters": self.parameters, "macs": self.macs, "file_bytes": self.file_bytes}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return self.scalars() | {"layers": [asdict(layer) for layer in self.layers]}

    def table(self) -> str:
        """Return a table for people: every layer, and the whole."""
        rows = [("layer", "kind", "parameters", "bytes", "MACs")]
        rows += [(_shown(v.name), v.kind, f"{v.parameters:,}", f"{v.bytes:,}", f"{v.macs:,}") for v in self.layers]
        size = sum(layer.bytes for layer in self.layers)
        rows.append(("all", "", f"{self.parameters:,}", f"{size:,}", f"{self.macs:,}"))
        return f"{columns(rows, rules={1, len(rows) - 1})}\na file of {self.file_bytes:,} bytes"


@dataclass(frozen=True)
class CostReport:
    """A dense model and a smaller one made of it, side by side.

    Attributes:
        dense: cost of the dense model.
        smaller: cost of the smaller one, whose layers keep their names.
        dense_ms: median milliseconds of a forward of the dense model.
        smaller_ms: the same of the smaller one, timed in turn with it.
        repeats: how many forwards of each were timed.
        device: where, with the number of threads on a CPU.
    """

    dense: Cost
    smaller: Cost
    dense_ms: float
    smaller_ms: float
    repeats: int
    device: str

    @property
    def predicted_speedup(self) -> float:
        """How many times fewer multiply-adds the smaller model makes."""
        return _times(self.dense.macs, self.smaller.macs)

    @property
    def measured_speedup(self) -> float:
        """How many times faster it ran."""
        return _times(self.dense_ms, self.smaller_ms)

    def scalars(self) -> dict[str, float]:
        """Return flat numbers for a logger."""
        numbers: dict[str, float] = {}
        for name, cost, ms in (("dense", self.dense, self.dense_ms), ("smaller", self.smaller, self.smaller_ms)):
            numbers |= {f"{name}/{key}": value for key, value in cost.scalars().items()}
            numbers[f"{name}/latency_ms"] = ms
        return numbers | {"predicted_speedup": self.predicted_speedup, "measured_speedup": self.measured_speedup}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold; a speed-up without bound is None."""
        speedups = {"predicted_speedup": self.predicted_speedup, "measured_speedup": self.measured_speedup}
        return {
            "dense": self.dense.to_dict() | {"latency_ms": self.dense_ms},
            "smaller": self.smaller.to_dict() | {"latency_ms": self.smaller_ms},
            **{name: value if math.isfinite(value) else None for name, value in speedups.items()},
            "repeats": self.repeats,
            "device": self.device,
        }

    def table(self) -> str:
        """Return tables for people: every layer, and the whole with predicted and measured speed-up."""
        smaller = {layer.name: layer for layer in self.smaller.layers}
        rows = [("layer", "parameters", "smaller", "MACs", "smaller", "times fewer MACs")]
        for a in self.dense.layers:
            b = smaller.pop(a.name, None)
            times = "" if b is None or not a.macs else f"{_times(a.macs, b.macs):.2f}"
            left = ("gone", "gone") if b is None else (f"{b.parameters:,}", f"{b.macs:,}")
            rows.append((_shown(a.name), f"{a.parameters:,}", left[0], f"{a.macs:,}", left[1], times))
        rows += [(_shown(b.name), "none", f"{b.parameters:,}", "none", f"{b.macs:,}", "") for b in smaller.values()]
        one, other = self.dense, self.smaller
        whole = [("", "dense", "smaller", "times less")]
        for name, x, y in (
            ("parameters", one.parameters, other.parameters),
            ("file, bytes", one.file_bytes, other.file_bytes),
            ("MACs", one.macs, other.macs),
        ):
            whole.append((name, f"{x:,}", f"{y:,}", f"{_times(x, y):.2f}"))
        ms = (f"{self.dense_ms:.3f}", f"{self.smaller_ms:.3f}", f"{self.measured_speedup:.2f}")
        whole.append(("latency, ms", *ms))
        return "\n".join(
            [
                columns(rows, rules={1}),
                "",
                columns(whole, rules={1}),
                f"speed-up: {self.predicted_speedup:.2f} predicted from MACs, {self.measured_speedup:.2f} measured "
                f"(median of {self.repeats} forwards, in turn, on {self.device})",
            ]
        )


def count(model: nn.Module, example_inputs: Any = None) -> Cost:
    """Return the cost of a model, which stays as it is.

    Multiply-adds are half the operations of torch's flop counter, for one forward of the example inputs in evaluation
    mode; a recurrent layer multiplies every entry of its matrices once for every time step of every sequence. Only
    products count: convolutions, linear and recurrent layers, attention. Zeros count like any other weight.

    Args:
        model: any module.
        example_inputs: what one forward takes: a tuple or list of arguments, a dict of them by name, or the only one;
            None for the module's `example_input_array`.

    Raises:
        ValueError: there are no example inputs.
    """
    products = macs(model, example_of(model, example_inputs))
    parameters: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        _add(parameters, name, parameter.numel())
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            _add(sizes, name, tensor.numel() * tensor.element_size())
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    names = dict.fromkeys([*kinds, *parameters, *sizes])
    layers = [LayerCost(n, kinds.get(n, ""), parameters.get(n, 0), sizes.get(n, 0), products.get(n, 0)) for n in names]
    return Cost([v for v in layers if v.parameters or v.bytes or v.macs], _file_bytes(model))


def latency(models: Sequence[nn.Module], example_inputs: Any = None, repeats: int = 30) -> list[float]:
    """Return the median milliseconds that a forward of each model takes, in evaluation and inference mode.

    The models take turns in one process, so that whatever else the machine does meets all alike.

    Args:
        models: any modules; each gets the example inputs on its own device.
        example_inputs: as for `count`.
        repeats: how many forwards of each are timed, after a few that are not.

    Raises:
        ValueError: `repeats` is below 1, or there are no example inputs.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    inputs = [example_of(model, example_inputs) for model in models]
    times: list[list[float]] = [[] for _ in models]
    turns = list(range(len(models)))
    with evaluation(*models), torch.inference_mode():
        for turn in range(_WARM_UP + repeats):
            for i in turns if turn % 2 else reversed(turns):
                _wait(models[i])
                start = time.perf_counter()
                call(models[i], inputs[i])
                _wait(models[i])
                times[i].append(1e3 * (time.perf_counter() - start))
    return [statistics.median(each[_WARM_UP:]) for each in times]


def compare(dense: nn.Module, smaller: nn.Module, example_inputs: Any = None, repeats: int = 30) -> CostReport:
    """Return the costs of two models side by side, both measured here and now.

    Args:
        dense: the model to compare with.
        smaller: what became of it.
        example_inputs: as for `count`; None for the dense model's `example_input_array`.
        repeats: as for `latency`.

    Raises:
        ValueError: `repeats` is below 1, or there are no example inputs.
    """
    inputs = example_of(dense, example_inputs)
    dense_ms, smaller_ms = latency((dense, smaller), inputs, repeats)
    where = _device(smaller)
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else str(where)
    device = f"{name} with {threads} thread{'s' if threads > 1 else ''}" if where.type == "cpu" else name
    return CostReport(count(dense, inputs), count(smaller, inputs), dense_ms, smaller_ms, repeats, device)


class _Length(io.RawIOBase):
    """A file that keeps its length alone."""

    length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.length += size
        return size


def _file_bytes(model: nn.Module) -> int:
    file = _Length()
    torch.save(model.state_dict(), file)  # pyright: ignore[reportArgumentType] - torch writes, and asks for no more
    return file.length


def _add(sums: dict[str, int], name: str, value: int) -> None:
    layer = name.rpartition(".")[0]
    sums[layer] = sums.get(layer, 0) + value


def _times(large: float, small: float) -> float:
    return large / small if small else (math.inf if large else 1.0)


def _shown(name: str) -> str:
    return name or "(the model itself)"


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _wait(model: nn.Module) -> None:
    """Wait for what was started on an accelerator."""
    device = _device(model)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
