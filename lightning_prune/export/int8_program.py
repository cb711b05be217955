"""A model as a program, and the program with 8 bits: what torch.export and torchao's pt2e are asked."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from lightning_prune.coupling.example import call, examples_in, tensors
from lightning_prune.export import onnx_file
from lightning_prune.export.eight_bits import Chosen, Quantizer

_MOST, _RANGE = 127, 1024
"""The largest integer of a weight, and how far the largest weights of two output channels may lie apart."""


def exported(model: nn.Module, example: Any) -> fx.GraphModule:
    """Return the model as a program whose weights go by the model's names. Raises ValueError where torch cannot."""
    args, by_name = onnx_file.arguments(example)
    shapes = onnx_file.free(args if by_name is None else by_name)
    try:
        with onnx_file.silent(), torch.no_grad():
            return torch.export.export(model, args, by_name, dynamic_shapes=shapes).module()  # pyright: ignore
    except Exception as error:  # whatever torch raises, and there are many
        raise ValueError(
            f"torch.export cannot take {type(model).__name__} apart: {onnx_file.reason(error)}. What its forward does "
            "must not depend on values of tensors; torch.cond and torch.where may stand for an if"
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


def converted_to_int8(program: fx.GraphModule, chosen: Chosen, batches: Sequence[Any]) -> fx.GraphModule:
    """Return the program with 8 bits. Raises ValueError where a batch does not fit it."""
    pt2e: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    with onnx_file.quiet():
        prepared = pt2e.prepare_pt2e(program, _quantizer(chosen))
        for number, batch in enumerate(batches):
            try:
                outputs(prepared, batch)
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ValueError(
                    f"calibration: batch {number} of {examples_in(batch)} examples does not fit the program that was "
                    f"made with {max(map(examples_in, batches))}: {onnx_file.reason(error)}. Give batches of one shape"
                ) from error
        return pt2e.convert_pt2e(prepared)


@torch.no_grad()
def outputs(program: nn.Module, batch: Any) -> list[Tensor]:
    """Return the tensors that a program gives."""
    return [out.detach().clone() for out in tensors(call(program, batch))]
