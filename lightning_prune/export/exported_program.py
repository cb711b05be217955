"""A model as a file of `torch.export` that gives the same outputs, and runs without the model's code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import (
    answer,
    call,
    copy_of,
    distance,
    example_of,
    examples_in,
    own_randomness,
    tensors,
    with_batch,
)
from lightning_prune.coupling.full_precision import full_precision
from lightning_prune.export.onnx_file import arguments, free, quiet, reason
from lightning_prune.export.whole_file import unfinished

_AUTO = "2.6"
"""The first torch that finds out by itself which dimensions can be free."""


@dataclass(frozen=True)
class Exported:
    """A file of `torch.export` that was written.

    Attributes:
        difference: by how much outputs differ at most, as a share of the largest, on all batches that were compared.
        batch: how many examples a forward has to have; None for any number of them.
    """

    difference: float
    batch: int | None


def to_exported_program(
    model: nn.Module, file: str | os.PathLike[str], example_inputs: Any = None, tolerance: float = 1e-4
) -> Exported:
    """Write a model by `torch.export.save`, load it again, and see that it gives the same outputs.

    They are compared on the example inputs and on a batch of another size. Where the model or torch takes batches of
    one size alone, that size is what the file takes, and the result says so. Zeros stay in place.
    `torch.export.load(file).module()` gives it back without the model's code.

    Args:
        model: any module that torch can export; it stays as it is.
        file: where to, a name that ends with .pt2; left as it is when the outputs differ too much.
        example_inputs: what one forward takes: a tuple or list of arguments, a dict of them by name, or the only one;
            None for the module's `example_input_array`.
        tolerance: largest difference allowed, as a share of the largest output.

    Raises:
        RuntimeError: torch is older than 2.6.
        ValueError: torch cannot export the model, the outputs differ by more, or there are no example inputs.
    """
    if not hasattr(torch.export.Dim, "AUTO"):
        raise RuntimeError(f"torch.export with a free batch needs torch {_AUTO} or later; this is {torch.__version__}")
    made = copy_of(model).cpu().eval()
    example = example_of(made, example_inputs)
    batch = examples_in(example)
    traced = max(2, batch)  # torch takes a size of 1 for a constant
    several = with_batch(example, traced)
    with unfinished(Path(file)) as place:
        try:
            pairs = _answers(made, place, several, True, [example, with_batch(example, traced + 1)])
            only = None
        except Exception:  # the model's own code, or torch's guards, at a batch that they were not made for
            pairs, only = _of_one_size(made, place, example), batch
        difference = max(distance(expected, found)[1] for expected, found in pairs)
        if not difference <= tolerance:
            raise ValueError(
                f"outputs of the exported program differ by {difference:.2e} of the largest, more than {tolerance}"
            )
    return Exported(difference, only)


def _of_one_size(model: nn.Module, place: Path, example: Any) -> list[tuple[list[Tensor], list[Tensor]]]:
    try:
        return _answers(model, place, example, False, [example])
    except Exception as error:  # torch's and the model's own
        raise ValueError(f"torch.export cannot export {type(model).__name__}: {reason(error)[:300]}") from error


def _answers(
    model: nn.Module, place: Path, traced: Any, dynamic: bool, inputs: Sequence[Any]
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Write a model's program to a place, and return what the model and the program answer to each of the inputs."""
    args, by_name = arguments(traced)
    shapes = free(args if by_name is None else by_name) if dynamic else None
    expected = [answer(model, each) for each in inputs]
    with quiet():
        program = torch.export.export(model, args, by_name, dynamic_shapes=shapes, strict=False)
        _forget_origins(program)
        torch.export.save(program, place)
        loaded = torch.export.load(place).module()
        return [(one, _run(loaded, each)) for one, each in zip(expected, inputs, strict=True)]


def _forget_origins(program: torch.export.ExportedProgram) -> None:
    """Take out of a program in which source a node was made: paths of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _run(program: nn.Module, inputs: Any) -> list[Tensor]:
    """Return the tensors that a program gives. It has no modes: it is in the one that it was traced in."""
    with own_randomness(), full_precision(program), torch.no_grad():
        torch.manual_seed(0)
        return [tensor.detach().clone() for tensor in tensors(call(program, inputs))]
