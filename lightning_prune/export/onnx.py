"""A model as an ONNX file that gives the same outputs."""

from __future__ import annotations

import copy
import importlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer, distance, example_of, tensors
from lightning_prune.export.tracing import free, positional, quiet, unfinished

_NEEDS = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(
    model: nn.Module, file: str | os.PathLike[str], example_inputs: Any = None, tolerance: float = 1e-4
) -> float:
    """Write a model as ONNX and return by how much onnxruntime's outputs differ on the example inputs.

    The first dimension of each input is free where the model allows it. Zeros stay in place, so prune units and shrink
    the model first to make it smaller. Needs `pip install 'lightning-prune[export]'`.

    Args:
        model: any module that torch can export; it stays as it is.
        file: where to; left as it is when the outputs differ too much.
        example_inputs: what one forward takes: a tuple or list of arguments, a dict of them by name, or the only one;
            None for the module's `example_input_array`.
        tolerance: largest difference allowed, as a share of the largest output.

    Raises:
        ModuleNotFoundError: one of onnx, onnxscript and onnxruntime is not installed.
        ValueError: the outputs differ by more, or there are no example inputs.
    """
    for name in _NEEDS:
        importlib.import_module(name)
    made = copy.deepcopy(model).cpu().eval()
    example = example_of(made, example_inputs)
    args, by_name = ((), example) if isinstance(example, dict) else (positional(example), None)
    with unfinished(Path(file)) as place:
        with quiet("torch.onnx"):
            torch.onnx.export(
                made,
                args,
                place,
                kwargs=by_name,
                dynamic_shapes=free(args if by_name is None else by_name),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        difference = distance(answer(made, example), _run(place, example))[1]
        if not difference <= tolerance:
            raise ValueError(
                f"outputs of the ONNX file differ by {difference:.2e} of the largest, more than {tolerance}"
            )
    return difference


def _run(file: Path, example: Any) -> list[Tensor]:
    """Return what onnxruntime makes of the example inputs."""
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    given = example if isinstance(example, dict) else dict(zip(names, tensors(positional(example)), strict=True))
    return [torch.from_numpy(out) for out in session.run(None, {name: given[name].numpy() for name in names})]
