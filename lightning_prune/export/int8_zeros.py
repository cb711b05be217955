"""Whether each weight that was zero is zero in a file with 8 bits."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from lightning_prune.export.eight_bits import value_of


@dataclass(frozen=True)
class Held:
    """A weight of 8 bits in a program.

    Attributes:
        name: the program's own name of it, which is the file's.
        values: its integers.
    """

    name: str
    values: Tensor


def of_node(program: fx.GraphModule, name: str) -> Held:
    """Return the weight of 8 bits that a node of a converted program multiplies with.

    Raises:
        ValueError: it has none, or its zero is not 0.
    """
    node = next((each for each in program.graph.nodes if each.name == name), None)
    widened = node.args[1] if node is not None else None
    if not isinstance(widened, fx.Node) or "dequantize_per_channel" not in str(widened.target):
        raise ValueError(f"torchao left {name} in float, or took it out")
    stored, _, zero = (value_of(program, each) for each in widened.args[:3])
    if stored.dtype != torch.int8 or bool(zero.any()):
        raise ValueError(f"{name}: its weight is {stored.dtype}, with zeros at {sorted(set(zero.tolist()))[:3]}, not 0")
    return Held(str(getattr(widened.args[0], "target", "")), stored)


def check(file: Path, weights: Mapping[str, Tensor], held: Mapping[str, Held]) -> dict[str, int]:
    """Return how many entries of each weight are zero in a file.

    Args:
        file: an ONNX file.
        weights: name -> the float weight before anything was folded into it.
        held: name -> the weight of 8 bits.

    Raises:
        ValueError: the file has not that weight, its zero is not 0, or an entry that was zero is not.
    """
    onnx: Any = importlib.import_module("onnx")
    graph = onnx.load(file).graph
    arrays = {
        each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
        for each in graph.initializer
        if each.data_type == onnx.TensorProto.INT8
    }
    uses = [node.input for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in arrays]
    zero_points = {names[0]: names[2] for names in uses if len(names) > 2}
    found: dict[str, int] = {}
    for name, weight in weights.items():
        stored = _stored(arrays, held[name])
        if stored is None or stored not in {names[0] for names in uses}:
            raise ValueError(f"the file has no weight of 8 bits for {name}")
        point = zero_points.get(stored)
        if point is not None and (point not in arrays or bool(arrays[point].any())):
            raise ValueError(f"{name}: the file has its zero elsewhere than at 0")
        lost = int(((weight == 0) & (arrays[stored] != 0)).sum())
        if lost:
            raise ValueError(f"{name}: {lost:,} weights that were zero are not in the file")
        found[name] = int((arrays[stored] == 0).sum())
    return found


def _stored(arrays: Mapping[str, Tensor], held: Held) -> str | None:
    """Return the file's name of a weight; two that are equal may be there once."""
    own = arrays.get(held.name)
    if own is not None and torch.equal(own, held.values):
        return held.name
    return next((name for name, value in arrays.items() if torch.equal(value, held.values)), None)
