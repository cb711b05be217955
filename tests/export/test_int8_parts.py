"""What an export with 8 bits rests on: zeros looked up in a file, what is not installed, and what stays quiet."""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.export import int8_zeros, onnx_file, to_int8
from lightning_prune.export.int8_zeros import Held

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
with onnx_file.quiet():
    pytest.importorskip("torchao")


def written(file: Path, name: str, values: Tensor, zero: int) -> Path:
    """Write a file with one weight of 8 bits, whose zero is an integer."""
    helper, numpy = onnx.helper, onnx.numpy_helper
    node = helper.make_node("DequantizeLinear", [name, "scale", "zero"], ["out"], axis=0)
    arrays = {
        name: values,
        "scale": torch.ones(len(values)),
        "zero": torch.full((len(values),), zero, dtype=torch.int8),
    }
    initializers = [numpy.from_array(array.numpy(), key) for key, array in arrays.items()]
    out = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, list(values.shape))
    onnx.save(helper.make_model(helper.make_graph([node], "one", [], [out], initializers)), file)
    return file


def test_zeros_are_looked_up_in_the_file_itself(tmp_path: Path) -> None:
    weight, values = torch.tensor([[0.0, 2.0, 1e-9]]), torch.tensor([[0, 127, 0]], dtype=torch.int8)
    file = written(tmp_path / "net.onnx", "w", values, 0)
    assert int8_zeros.check(file, {"a": weight}, {"a": Held("w", values)}) == {"a": 2}
    assert int8_zeros.check(file, {"a": weight}, {"a": Held("equal to it", values)}) == {"a": 2}
    with pytest.raises(ValueError, match="the file has no weight of 8 bits for a"):
        int8_zeros.check(file, {"a": weight}, {"a": Held("w", values.neg())})
    with pytest.raises(ValueError, match="a: 1 weights that were zero are not in the file"):
        int8_zeros.check(file, {"a": torch.zeros(1, 3)}, {"a": Held("w", values)})
    moved = written(tmp_path / "moved.onnx", "w", values, 3)
    with pytest.raises(ValueError, match="a: the file has its zero elsewhere than at 0"):
        int8_zeros.check(moved, {"a": weight}, {"a": Held("w", values)})


@pytest.mark.parametrize("zero", [None, 0, 3])
def test_a_program_without_a_weight_of_8_bits_is_told(zero: int | None) -> None:
    """What torchao might give: the weight in float, or with a zero that is not 0."""
    program = torch.fx.GraphModule(nn.Module(), torch.fx.Graph())
    program.register_buffer("weight", torch.zeros(2, 2, dtype=torch.int8))
    program.register_buffer("scale", torch.ones(2))
    program.register_buffer("zero", torch.full((2,), zero or 0))
    weight, scale, point = (program.graph.get_attr(name) for name in ("weight", "scale", "zero"))
    if zero is not None:

        def dequantize_per_channel(*_: Any) -> None: ...

        weight = program.graph.call_function(dequantize_per_channel, (weight, scale, point, 0))
    layer = program.graph.call_function(torch.nn.functional.linear, (weight, weight))
    if zero == 0:
        assert int8_zeros.of_node(program, layer.name).name == "weight"
        return
    said = (
        "torchao left linear in float"
        if zero is None
        else r"linear: its weight is torch.int8, with zeros at \[3\], not 0"
    )
    with pytest.raises(ValueError, match=said):
        int8_zeros.of_node(program, layer.name)


@pytest.mark.parametrize("missing", ["torchao", "onnxruntime", "onnxscript", "onnx"])
def test_says_what_is_not_installed_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ModuleNotFoundError, match=missing) as raised:
        to_int8(nn.Linear(4, 4), tmp_path / "net.onnx", iter(lambda: pytest.fail("a batch was asked for"), None))
    assert raised.value.name == missing
    if missing == "torchao":
        assert "pip install 'lightning-prune[int8]'" in str(raised.value)


def test_a_torchao_without_it_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def older(name: str, package: str | None = None) -> Any:
        if name.startswith("torchao.quantization.pt2e"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", older)
    with pytest.raises(RuntimeError, match=r"this torchao has no quantize_pt2e: pip install 'torchao>=0\.18'"):
        to_int8(nn.Linear(4, 4), tmp_path / "net.onnx", [torch.ones(2, 4)])


def test_loggers_and_warnings_are_as_before() -> None:
    names = ("torchao", "torch.onnx", "torch.utils._pytree", "torch._export")
    levels = {name: logging.getLogger(name).level for name in names}
    filters = list(warnings.filters)
    with onnx_file.quiet():
        importlib.import_module("torchao")
        assert not logging.getLogger("torchao").isEnabledFor(logging.WARNING)
    assert {name: logging.getLogger(name).level for name in names} == levels
    assert list(warnings.filters) == filters
