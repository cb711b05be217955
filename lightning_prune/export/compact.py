"""Sparse weights in a small safetensors file, exact to the bit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune import saved
from lightning_prune.export.compact_report import Compact, CompactTensor
from lightning_prune.export.encoding import VALUES, encoded
from lightning_prune.export.whole_file import unfinished
from lightning_prune.ranking.float_keys import bits

FORMAT, VERSION = "lightning-prune compact", 1
"""The key in the header of a file, and what stands there is of."""
MOST_DIMENSIONS = 64
"""torch's kernels take no more."""
DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex64", "bool"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
    if hasattr(torch, name)
}
"""By name, what safetensors holds; earlier versions of it hold fewer."""

_PLAIN = (Tensor, nn.Parameter)


def save_compact(
    model: nn.Module | Mapping[str, Any], file: str | os.PathLike[str], extra: Mapping[str, Any] | None = None
) -> Compact:
    """Write weights as a safetensors file in which each tensor takes as few bytes as it can.

    A tensor is written dense, or as one bit an entry and the entries that are not zero, or as the runs of zeros between
    these, a byte each: whichever is smallest. Any tool for safetensors opens the file and lists these parts,
    `NAME:bitmask` or `NAME:gaps`, and `NAME:values`. `load_compact` gives back every bit; -0.0 is written like any
    entry. A tensor that is in the model twice is written once.

    Args:
        model: a model, or its state_dict; it stays as it is.
        file: where to; left as it is where an error is raised.
        extra: plain values to keep beside the tensors, which JSON can hold.

    Raises:
        ModuleNotFoundError: safetensors is not installed.
        OSError: the file cannot be written.
        ValueError: an entry is no dense tensor, or of a dtype that safetensors does not hold.
    """
    safetensors = importable()
    from safetensors import SafetensorError

    state = model.state_dict(keep_vars=True) if isinstance(model, nn.Module) else model
    about, parts, tensors = _encoded(state, gaps=True)
    if saved.claims_too_much(sum(each.dense_bytes for each in tensors), sum(each.bytes for each in tensors)):
        about, parts, tensors = _encoded(state, gaps=False)  # so few bytes that nobody would read them
    facts: dict[str, Any] = {"version": VERSION, "tensors": about} | ({"extra": dict(extra)} if extra else {})
    file = Path(file)
    header = {FORMAT: json.dumps(facts)}  # one key: several have no order
    try:
        with unfinished(file) as place:
            safetensors.save_file(parts, place, header)
    except SafetensorError as error:
        raise OSError(f"{file} cannot be written: {error}") from error
    return Compact(file, file.stat().st_size, tuple(tensors))


def _encoded(
    state: Mapping[str, Any], gaps: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor], list[CompactTensor]]:
    """Return what the header says of each tensor, the tensors of the file, and what to say of them."""
    first: dict[Any, str] = {}
    about: dict[str, dict[str, Any]] = {}
    parts: dict[str, Tensor] = {}
    tensors: list[CompactTensor] = []
    for name, value in state.items():
        tensor = _checked(name, value)
        owner = first.setdefault(_memory(value), name)
        if owner != name:
            about[name] = {"same_as": owner}
            tensors.append(CompactTensor(name, tuple(tensor.shape), owner, 0, 0, 0))
            continue
        encoding, made = encoded(tensor, gaps)
        about[name] = {"shape": list(tensor.shape), "dtype": name_of(tensor.dtype), "encoding": encoding}
        named = {f"{name}:{part}": each for part, each in made.items()} or {name: tensor.clone()}
        clash = next((part for part in named if part in parts), None)
        if clash is not None:
            raise ValueError(f"{clash!r} is the name of a tensor and of a part of another one: rename it")
        parts |= named
        values = made.get(VALUES, tensor)
        taken = sum(each.nbytes for each in named.values())
        sizes = (values.numel(), tensor.nbytes, taken, _negative_zeros(values))
        tensors.append(CompactTensor(name, tuple(tensor.shape), encoding, *sizes))
    return about, parts, tensors


def importable() -> Any:
    """Return safetensors.torch. Raises ModuleNotFoundError that says how to get it."""
    try:
        return import_module("safetensors.torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "safetensors is not installed: pip install 'lightning-prune[structured]'", name="safetensors"
        ) from error


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype without torch's."""
    return str(dtype).removeprefix("torch.")


def _checked(name: Any, value: Any) -> Tensor:
    """Return a tensor as contiguous memory of the CPU. Raises ValueError if it is none that can be written."""
    if not isinstance(name, str) or name == "__metadata__":
        raise ValueError(f"{name!r} cannot be the name of a tensor in a safetensors file")
    if not isinstance(value, Tensor):
        raise ValueError(f"{name!r} is a {type(value).__name__}: a compact file holds tensors alone")
    if type(value) not in _PLAIN or value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        kind = type(value).__name__ if type(value) not in _PLAIN else f"{value.layout} tensor on {value.device}"
        raise ValueError(f"{name!r} is a {kind}: a compact file holds plain dense tensors alone")
    if name_of(value.dtype) not in DTYPES:
        raise ValueError(f"{name!r} is of {value.dtype}, which a safetensors file does not hold")
    if value.dim() > MOST_DIMENSIONS:
        raise ValueError(f"{name!r} has {value.dim()} dimensions, more than {MOST_DIMENSIONS}")
    return value.detach().resolve_conj().resolve_neg().cpu().contiguous()


def _negative_zeros(values: Tensor) -> int:
    if not values.dtype.is_floating_point or name_of(values.dtype).endswith("fnuz"):  # these have none
        return 0
    raw = bits(values)
    return int((raw == torch.iinfo(raw.dtype).min).count_nonzero())


def _memory(tensor: Tensor) -> Any:
    """Return what two tensors that are one have alike: the same entries of the same memory."""
    if not tensor.numel():
        return id(tensor)
    flags = (tensor.dtype, tensor.is_conj(), tensor.is_neg())
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), *flags
