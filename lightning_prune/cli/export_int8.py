"""`lightning-prune export --format int8`."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli.errors import UserError, printable
from lightning_prune.cli.exporting import Asked, Format, Option, in_run
from lightning_prune.cli.quiet import quiet

if TYPE_CHECKING:
    from lightning_prune.export import Int8Export

_EXAMPLES = 512
_CALIBRATION = Option(
    "--calibration",
    f"how many examples of the run's training data show the range of what layers read; {_EXAMPLES}",
    kind=int,
)


def write(asked: Asked) -> None:
    """Write the model as ONNX with weights of 8 bits, and say what it costs in accuracy."""
    examples = asked.own.get(_CALIBRATION.name, _EXAMPLES)
    if examples < 1:
        raise UserError(f"--calibration={examples} must be 1 or more")
    from lightning_prune.cli.evaluated import Evaluator
    from lightning_prune.coupling.example import examples_in
    from lightning_prune.export import to_int8, to_onnx
    from lightning_prune.export.int8 import check_installed

    check_installed()
    model = asked.load()
    with quiet():
        evaluator = Evaluator(asked.run, None, asked.trust)
        batches = evaluator.inputs(model, examples)
        metrics = evaluator.metrics(model)
        model.cpu()
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            to_onnx(model, Path(folder) / "float.onnx", batches[0], tolerance=math.inf)
            float_bytes = (Path(folder) / "float.onnx").stat().st_size
        result = to_int8(model, asked.out, batches)
        in_int8 = _metrics(evaluator, model, asked.out, batches[0])
    sizes = {"float_bytes": float_bytes, "weights_bytes": asked.weights.stat().st_size}
    calibration = {"examples": sum(map(examples_in, batches)), "batches": len(batches)}
    facts = _facts(result) | sizes | {"calibration": calibration, "stage": evaluator.stage}
    facts["metrics"] = {name: {"float": value, "int8": in_int8.get(name)} for name, value in metrics.items()}
    asked.say(_text(result, facts, asked.weights.name), facts)


def _metrics(evaluator: Any, model: Any, file: Path, example: Any) -> dict[str, float]:
    """Return what a file answers on the run's test, in place of the model's forward."""
    import torch
    from torch import nn

    from lightning_prune.cli.forward_inputs import forward_alone
    from lightning_prune.coupling.example import call, example_of, tensors
    from lightning_prune.export import onnx_file

    with torch.no_grad():
        like = call(model, example)
    session = onnx_file.session(file)

    def forward(*args: Any, **by_name: Any) -> Any:
        given = {**dict(zip(example, args, strict=False)), **by_name} if isinstance(example, dict) else args
        device = next(tensors(given)).device
        answers = onnx_file.ask(session, example_of(nn.Identity(), given))  # in float32 on the CPU
        return _filled(like, (each.to(device) for each in answers))

    model.forward = forward
    try:
        with forward_alone(model, evaluator.stage):
            return evaluator.metrics(model)
    finally:
        del model.forward


def _filled(like: Any, values: Iterator[Any]) -> Any:
    """Return an answer of the same kind with other tensors in it."""
    from torch import Tensor

    if isinstance(like, Tensor):
        return next(values)
    if isinstance(like, dict):
        return {key: _filled(part, values) for key, part in like.items()}
    if isinstance(like, (tuple, list)):
        parts = [_filled(part, values) for part in like]
        return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
    if like is None:
        return None
    raise UserError(f"forward gives a {type(like).__name__}: what is exported is a tensor, or dicts and tuples of some")


def _facts(result: Int8Export) -> dict[str, Any]:
    return {
        "file": str(result.file),
        "bytes": result.bytes,
        "difference": result.difference,
        "parity": result.parity,
        "zeros": result.zeros,
        "zeros_in_file": result.zeros_in_file,
        "quantized": result.quantized,
        "float": {each.name: each.reason for each in result.weights if each.reason is not None},
    }


def _text(result: Int8Export, facts: Mapping[str, Any], weights: str) -> str:
    size = result.bytes
    lines = [
        result.table(),
        f"{result.file}: {size:,} bytes, {size / facts['float_bytes']:.2f} of the float ONNX file "
        f"({facts['float_bytes']:,}) and {size / facts['weights_bytes']:.2f} of {weights} ({facts['weights_bytes']:,})",
        f"outputs differ by {result.difference:.1e} of the largest from the float model's on "
        f"{facts['calibration']['examples']:,} examples of training; onnxruntime's by {result.parity:.1e} from torch's",
        f"zeros: {result.zeros:,} in the weights that have 8 bits, all in place; {result.zeros_in_file:,} in the file",
    ]
    for name, found in facts["metrics"].items():
        lines.append(f"{printable(name)}: {found['float']:.4f} in float, {found['int8']:.4f} in 8 bits by onnxruntime")
    if not facts["metrics"]:
        lines.append(f"the {facts['stage']} has no metrics to compare")
    return "\n".join(lines)


INT8 = Format("weights of 8 bits, for onnxruntime", in_run("model.int8.onnx"), write, (_CALIBRATION,))
