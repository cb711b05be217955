"""A model as an ONNX file that gives the same outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from lightning_prune.coupling.example import answer, copy_of, distance, example_of, examples_in, with_batch
from lightning_prune.export.onnx_file import ask, check_installed, say_fixed, session, tried_on, write


def to_onnx(
    model: nn.Module, file: str | os.PathLike[str], example_inputs: Any = None, tolerance: float = 1e-4
) -> float:
    """Write a model as ONNX and return by how much onnxruntime's outputs differ on the example inputs.

    The first dimension of each input is free where the model allows it: outputs are compared on the example inputs and
    on a batch of another size. Where it does not, a warning says which size the file takes. Zeros stay in place, so
    prune units and shrink the model first to make it smaller. Needs `pip install 'lightning-prune[export]'`.

    Args:
        model: any module that torch can export; it stays as it is.
        file: where to; left as it is when the outputs differ too much.
        example_inputs: what one forward takes: a tuple or list of arguments, a dict of them by name, or the only one;
            None for the module's `example_input_array`.
        tolerance: largest difference allowed, as a share of the largest output.

    Raises:
        ModuleNotFoundError: one of onnx, onnxscript and onnxruntime is not installed.
        ValueError: torch cannot write the model as ONNX, the outputs differ by more, or there are no example inputs.
    """
    check_installed()
    made = copy_of(model).cpu().eval()
    example = example_of(made, example_inputs)
    file = Path(file)
    unfinished = file.with_name(f".{file.name}.unfinished")
    batch = examples_in(example)
    inputs, free = tried_on(made, example)
    try:
        # torch takes a size of 1 for a constant
        write(made, with_batch(example, max(2, batch)) if free else example, unfinished, free)
        running = session(unfinished)
        difference = max(distance(answer(made, each), ask(running, each))[1] for each in inputs)
        if not difference <= tolerance:
            raise ValueError(
                f"outputs of the ONNX file differ by {difference:.2e} of the largest, more than {tolerance}"
            )
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
    if not free:
        say_fixed(file, batch)
    return difference
