"""What a model costs: parameters, bytes, multiply-adds, by layer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.cost.macs import macs
from lightning_prune.coupling.example import example_of
from lightning_prune.report import columns


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
        rows += [(shown(v.name), v.kind, f"{v.parameters:,}", f"{v.bytes:,}", f"{v.macs:,}") for v in self.layers]
        size = sum(layer.bytes for layer in self.layers)
        rows.append(("all", "", f"{self.parameters:,}", f"{size:,}", f"{self.macs:,}"))
        return f"{columns(rows, rules={1, len(rows) - 1})}\na file of {self.file_bytes:,} bytes"


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


def shown(name: str) -> str:
    """Return the name of a layer for people."""
    return name or "(the model itself)"
