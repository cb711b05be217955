"""What every ONNX export does: look what is installed, write the file, run it, keep torch's own talk out."""

from __future__ import annotations

import importlib
import io
import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer, examples_in, tensors, with_batch

_NEEDS = ("onnx", "onnxscript", "onnxruntime")
_TALKERS = (
    *("torch.onnx", "torch.export", "torch._export", "torch._export.non_strict_utils"),
    *("torch.fx.experimental.symbolic_shapes", "torch.utils._pytree", "torchao"),
)


def check_installed() -> None:
    """Raise a ModuleNotFoundError that names the first of onnx, onnxscript and onnxruntime that is not installed."""
    for name in _NEEDS:
        importlib.import_module(name)


def write(model: nn.Module, example: Any, file: Path, any_batch: bool = True) -> None:
    """Write a model as ONNX.

    Args:
        model: any module that torch can export.
        example: what one forward takes.
        file: where to.
        any_batch: leave the first dimension of each input free; else it is the example's.

    Raises:
        ValueError: torch cannot take the model apart, or has no ONNX for something that it does.
    """
    args, by_name = arguments(example)
    keywords_last = bool(args) and isinstance(args[-1], dict)  # torch takes a dict that comes last for keywords
    try:
        with silent():
            torch.onnx.export(
                model,
                (*args, {}) if keywords_last else args,
                file,
                kwargs=by_name,
                dynamic_shapes=free(args if by_name is None else by_name) if any_batch else None,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever torch raises, and there are many
        raise ValueError(f"torch cannot write it as ONNX: {reason(error)}") from error
    _forget_origins(file)


def _forget_origins(file: Path) -> None:
    """Take out of a file where in which source a node was made: paths of this machine, and much of a small file."""
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load(file)
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            graphs.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))
        for each in (graph, *graph.node, *graph.value_info):
            del each.metadata_props[:]
    onnx.save(model, file)


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """Return example inputs as positional arguments, and as those by name, None where they are positional."""
    if isinstance(example, dict):
        return (), example
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), None


def free(value: Any) -> Any:
    """Return the shape of example inputs for torch.export: the first dimension of every tensor free."""
    if isinstance(value, Tensor):
        return {0: torch.export.Dim.AUTO} if value.dim() else None
    if isinstance(value, dict):
        return {key: free(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(free(part) for part in value)
    return None


def tried_on(model: nn.Module, example: Any) -> tuple[list[Any], bool]:
    """Return what a file is tried on beside the model, and whether it takes batches of any number of examples."""
    several = max(2, examples_in(example))  # torch takes a size of 1 for a constant
    other = with_batch(example, several + 1)
    try:
        answer(model, other)
    except Exception:  # the model's own code, at a batch that it was not made for
        return [example], False
    return ([example, other], True) if _takes_any_batch(model, with_batch(example, several)) else ([example], False)


def _takes_any_batch(model: nn.Module, example: Any) -> bool:
    """Return whether torch can trace a model for batches of any number of examples.

    Its exporter to ONNX declares the first dimensions free, and forgets what it found out about them: that a loop over
    examples was written out, say, or that another branch would be taken from five on.
    """
    args, by_name = arguments(example)
    try:
        with silent():
            shapes = free(args if by_name is None else by_name)
            program = torch.export.export(model, args, by_name, dynamic_shapes=shapes, strict=False)
    except Exception:  # the exporter to ONNX says what is the matter, if it cannot do it in another way
        return False
    inputs = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    seen = [n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder" and n.name in inputs]
    sizes = [value.shape[0] for value in seen if isinstance(value, Tensor) and value.dim()]
    if not all(isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None for size in sizes):
        return False
    return all(int(r.lower) <= 2 and bool(r.upper > sys.maxsize // 2) for r in program.range_constraints.values())


def say_fixed(file: Path, batch: int) -> None:
    """Warn that a file takes batches of one size alone."""
    warnings.warn(
        f"{file.name}: torch can trace the model for {batch} examples at a time alone, so that is what the file takes",
        stacklevel=3,
    )


def session(file: Path) -> Any:
    """Return onnxruntime's session of a file, on the CPU. Raises ValueError where it has no kernel for something."""
    runtime: Any = importlib.import_module("onnxruntime")
    try:
        return runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own, which share no class
        raise ValueError(f"onnxruntime cannot run it on the CPU: {' '.join(str(error).split())[:200]}") from error


def ask(session: Any, example: Any) -> list[Tensor]:
    """Return what a session makes of what one forward takes."""
    names = [each.name for each in session.get_inputs()]
    given: Any = example
    if not isinstance(given, dict) or given.keys() != set(names):  # an input that is an output, too, has another name
        given = dict(zip(names, tensors(example), strict=True))
    return [torch.from_numpy(out) for out in session.run(None, {name: given[name].numpy() for name in names})]


def reason(error: BaseException) -> str:
    """Return the line of an error of torch's exporter that says what is wrong."""
    text = str(error)
    lines = [" ".join(line.split()) for line in text.rpartition("## Exception summary")[2].splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


@contextmanager
def silent() -> Generator[None, None, None]:
    """Leave out what torch and torchao print, too: of a program that fails, all that there is."""
    nowhere = io.StringIO()
    with quiet(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Leave out what torch and torchao say of their own insides, for a while."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
