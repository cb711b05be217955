"""A pruned model with weights of 8 bits, as an ONNX file, its zeros in place."""

from __future__ import annotations

import copy
import importlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from lightning_prune.coupling.example import answer, call, distance, example_of, examples_in, tensors, with_batch
from lightning_prune.export import int8_zeros, onnx_file
from lightning_prune.export.eight_bits import Chosen, Quantizer, choose, settle_norms
from lightning_prune.report import columns

_MOST, _RANGE = 127, 1024
"""The largest integer of a weight, and how far the largest weights of two output channels may lie apart."""
_UNREAD = "no operation of the program reads it"


@dataclass(frozen=True)
class Int8Weight:
    """One weight of two or more dimensions.

    Attributes:
        name: dotted name; of a shared weight the first.
        shape: its shape.
        reason: why it stays float; None if it has 8 bits.
        zeros: how many of its entries are zero in the model.
        zeros_in_file: and in the file; more where what was tiny beside the largest of its output channel became zero.
            None for a weight that stays float, whose values stay as they are.
    """

    name: str
    shape: tuple[int, ...]
    reason: str | None
    zeros: int
    zeros_in_file: int | None


@dataclass(frozen=True)
class Int8Export:
    """What was written.

    Attributes:
        file: where.
        bytes: its size.
        difference: largest difference of the quantized model's outputs from the float model's on the calibration
            batches, as a share of the largest output of a batch.
        parity: the same between onnxruntime and torch, both with 8 bits.
        weights: every weight of two or more dimensions, in the model's order, with the reason if it stays float.
    """

    file: Path
    bytes: int
    difference: float
    parity: float
    weights: Sequence[Int8Weight]

    @property
    def quantized(self) -> list[str]:
        """The names of the weights that have 8 bits."""
        return [weight.name for weight in self.weights if weight.reason is None]

    @property
    def zeros(self) -> int:
        """How many entries of the weights that have 8 bits were zero before."""
        return sum(weight.zeros for weight in self.weights if weight.reason is None)

    @property
    def zeros_in_file(self) -> int:
        """How many are zero in the file, those among them."""
        return sum(weight.zeros_in_file or 0 for weight in self.weights)

    def table(self) -> str:
        """Return a table for people."""
        rows = [("weight", "shape", "zeros", "in the file", "8 bits")]
        for each in self.weights:
            in_file = "" if each.zeros_in_file is None else f"{each.zeros_in_file:,}"
            said = "yes" if each.reason is None else each.reason
            rows.append((each.name, "x".join(map(str, each.shape)), f"{each.zeros:,}", in_file, said))
        return columns(rows, rules={1})


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
    made = copy.deepcopy(model).cpu().float().eval()
    weights = _weights(made)
    batches = [example_of(made, batch) for batch in calibration]
    expected = _answers(made, batches)
    example = _example(made, batches)
    program = _exported(made, example)
    first = {id(value): name for name, value in reversed([*_named(made)])}
    chosen = choose(program, {name: first[id(value)] for name, value in _named(made) if first[id(value)] in weights})
    reasons = {name: chosen.reasons.get(name, _UNREAD) for name in weights if name not in chosen.layers}
    if not set(chosen.layers) & set(weights):
        said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "there is none"
        raise ValueError(f"no weight can have 8 bits: {said}. to_onnx writes the model in float")
    settle_norms(program)
    converted = _converted(program, _quantizer(chosen), batches)
    found = [_outputs(converted, batch) for batch in batches]
    held = {name: int8_zeros.of_node(converted, nodes[0]) for name, nodes in chosen.layers.items()}

    file = Path(file)
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        onnx_file.write(converted, example, unfinished)
        written = int8_zeros.check(unfinished, {name: weights[name] for name in held}, held)
        session = onnx_file.session(unfinished)
        parity = _largest(found, [onnx_file.ask(session, batch) for batch in batches])
        if not parity <= tolerance:
            raise ValueError(f"outputs of the ONNX file differ by {parity:.2e} of the largest, more than {tolerance}")
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
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
                f"calibration: the model cannot be called with batch {number}: {_line(error)}; a batch is what one "
                "forward takes, without labels"
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


def _exported(model: nn.Module, example: Any) -> fx.GraphModule:
    """Return the model as a program whose weights go by the model's names. Raises ValueError where torch cannot."""
    args, by_name = onnx_file.arguments(example)
    shapes = onnx_file.free(args if by_name is None else by_name)
    silent = io.StringIO()  # torch prints the program as far as it came
    try:
        with onnx_file.quiet(), redirect_stdout(silent), redirect_stderr(silent), torch.no_grad():
            return torch.export.export(model, args, by_name, dynamic_shapes=shapes).module()  # pyright: ignore
    except Exception as error:  # whatever torch raises, and there are many
        raise ValueError(
            f"torch.export cannot take {type(model).__name__} apart: {_line(error)}. What its forward does must not "
            "depend on values of tensors; torch.cond and torch.where may stand for an if"
        ) from error


def _quantizer(chosen: Chosen) -> Quantizer:
    """Return what tells torchao how 8 bits stand for values."""
    with onnx_file.quiet():
        terms: Any = importlib.import_module("torchao.quantization.pt2e.quantizer")
        observer: Any = importlib.import_module("torchao.quantization.pt2e.observer")

    def weight(value: Tensor) -> Any:
        # onnxruntime holds a bias in steps of input scale times channel scale: where a channel is all zero, or tiny
        # beside the others, a scale of its own would leave no room for the bias.
        least = float(value.detach().abs().max()) / _MOST / _RANGE or 1.0
        return terms.QuantizationSpec(
            dtype=torch.int8,
            quant_min=-_MOST,
            quant_max=_MOST,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=observer.PerChannelMinMaxObserver.with_args(eps=least),
        )

    activation = terms.QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=observer.HistogramObserver.with_args(eps=2**-12),
    )
    return Quantizer(chosen, activation, weight, terms.QuantizationAnnotation)


def _converted(program: fx.GraphModule, quantizer: Quantizer, batches: Sequence[Any]) -> fx.GraphModule:
    """Return the program with 8 bits. Raises ValueError where a batch does not fit it."""
    pt2e: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    with onnx_file.quiet():
        prepared = pt2e.prepare_pt2e(program, quantizer)
        for number, batch in enumerate(batches):
            try:
                _outputs(prepared, batch)
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ValueError(
                    f"calibration: batch {number} of {examples_in(batch)} examples does not fit the program that was "
                    f"made with {max(map(examples_in, batches))}: {_line(error)}. Give batches of one shape"
                ) from error
        return pt2e.convert_pt2e(prepared)


@torch.no_grad()
def _outputs(program: nn.Module, batch: Any) -> list[Tensor]:
    return [out.detach().clone() for out in tensors(call(program, batch))]


def _largest(one: Sequence[list[Tensor]], other: Sequence[list[Tensor]]) -> float:
    return max(distance(a, b)[1] for a, b in zip(one, other, strict=True))


def _line(error: BaseException) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
