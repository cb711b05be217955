"""A pruned model with weights of 8 bits, as an ONNX file, its zeros in place."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import answer, copy_of, distance, example_of, examples_in, with_batch
from lightning_prune.export import int8_zeros, onnx_file
from lightning_prune.export.eight_bits import choose, settle_norms
from lightning_prune.export.int8_program import converted_to_int8, exported, outputs
from lightning_prune.export.int8_result import Int8Export, Int8Weight

_UNREAD = "no operation of the program reads it"


def to_int8(
    model: nn.Module, file: str | os.PathLike[str], calibration: Iterable[Any], tolerance: float = 5e-2
) -> Int8Export:
    """Write a model as ONNX with weights of 8 bits, and compare it with the float model and in onnxruntime.

    Weights of linear layers and of convolutions that are not transposed get 8 bits, symmetric about zero and with a
    scale for each output channel, and what these layers read gets 8 bits with one scale, from what the calibration
    batches show. All else stays float, and each weight that does is named with the reason. A weight that was zero is
    zero in the file. Batch norm behind such a layer is folded into it where that is exact. The whole is worked out in
    float32 on a copy on the CPU, by torchao's `quantize_pt2e`. Needs `pip install 'lightning-prune[int8]'`.

    Args:
        model: a trained module that torch can export, best stripped and shrunk; it stays as it is.
        file: where to; left as it is when something is wrong.
        calibration: some batches like those that will be run, all in memory, each what one forward takes: a tuple or
            list of arguments, a dict of them by name, or the only one. Without labels.
        tolerance: largest `parity` allowed. onnxruntime multiplies integers, so values between two steps of 8 bits may
            be rounded the other way than in torch.

    Raises:
        ModuleNotFoundError: one of torchao, onnx, onnxscript and onnxruntime is not installed.
        RuntimeError: there is a torchao without `quantize_pt2e`.
        ValueError: torch cannot export the model, it cannot be called with a batch, values are not finite, no weight
            can have 8 bits, onnxruntime's outputs differ by more, or a zero was lost.
    """
    check_installed()
    made = copy_of(model).cpu().float().eval()
    weights = _weights(made)
    batches = [example_of(made, batch) for batch in calibration]
    expected = _answers(made, batches)
    example = _example(made, batches)
    tried, free = onnx_file.tried_on(made, example)
    program = exported(made, example)
    first = {id(value): name for name, value in reversed([*_named(made)])}
    chosen = choose(program, {name: first[id(value)] for name, value in _named(made) if first[id(value)] in weights})
    reasons = {name: chosen.reasons.get(name, _UNREAD) for name in weights if name not in chosen.layers}
    if not set(chosen.layers) & set(weights):
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "there is none"
        raise ValueError(f"no weight can have 8 bits: {said}. to_onnx writes the model in float")
    settle_norms(program)
    converted = converted_to_int8(program, chosen, batches)
    found = [outputs(converted, batch) for batch in batches]
    held = {name: int8_zeros.of_node(converted, nodes[0]) for name, nodes in chosen.layers.items()}

    file = Path(file)
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        onnx_file.write(converted, example, unfinished, free)
        written = int8_zeros.check(unfinished, {name: weights[name] for name in held}, held)
        session = onnx_file.session(unfinished)
        parity = _largest(found, [onnx_file.ask(session, batch) for batch in batches])
        for other in tried[1:]:
            parity = max(parity, _largest([outputs(converted, other)], [onnx_file.ask(session, other)]))
        if not parity <= tolerance:
            raise ValueError(f"outputs of the ONNX file differ by {parity:.2e} of the largest, more than {tolerance}")
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
    if not free:
        onnx_file.say_fixed(file, examples_in(example))
    rows = [
        Int8Weight(name, tuple(value.shape), reasons.get(name), int((value == 0).sum()), written.get(name))
        for name, value in weights.items()
    ]
    return Int8Export(file, file.stat().st_size, _largest(expected, found), parity, rows)


def check_installed() -> None:
    """Raise an error that says what is missing for 8 bits: see `to_int8`."""
    onnx_file.check_installed()
    with onnx_file.quiet():
        try:
            importlib.import_module("torchao")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "weights of 8 bits need torchao: pip install 'lightning-prune[int8]'", name="torchao"
            ) from error
        try:
            importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        except ImportError as error:
            raise RuntimeError(f"this torchao has no quantize_pt2e: pip install 'torchao>=0.18' ({error})") from error


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over parameters and buffers, shared ones by each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights as they were before anything is folded into them. Raises ValueError unless all are finite."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in named.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds values that are not finite: there is no range for 8 bits")
    return {n: v.detach().clone() for n, v in named.items() if v.is_floating_point() and v.dim() >= 2}


def _answers(model: nn.Module, batches: Sequence[Any]) -> list[list[Tensor]]:
    """Return what the float model gives for each batch. Raises ValueError where it fails or is not finite."""
    if not batches:
        raise ValueError("calibration holds no batches: give some like those that will be run")
    answers: list[list[Tensor]] = []
    for number, batch in enumerate(batches):
        try:
            answers.append(answer(model, batch))
        except Exception as error:  # whatever a forward of the user's own raises
            raise ValueError(
                f"calibration: the model cannot be called with batch {number}: {onnx_file.reason(error)}; a batch is "
                "what one forward takes, without labels"
            ) from error
        if not all(bool(torch.isfinite(each).all()) for each in answers[-1] if each.is_floating_point()):
            raise ValueError(f"calibration: the model's outputs for batch {number} are not finite")
    return answers


def _example(model: nn.Module, batches: Sequence[Any]) -> Any:
    """Return the largest batch, with two examples at least where the model takes them: of one the size stays fixed."""
    largest = max(batches, key=examples_in)
    if examples_in(largest) == 1:
        two = with_batch(largest, 2)
        with suppress(Exception):  # whatever a forward of the user's own raises
            answer(model, two)
            return two
    return largest


def _largest(one: Sequence[list[Tensor]], other: Sequence[list[Tensor]]) -> float:
    return max(distance(a, b)[1] for a, b in zip(one, other, strict=True))
