"""`lightning-prune inspect`: sparsity by layer of a checkpoint, this library's or any other."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved
from lightning_prune.cli.errors import UserError, message, one_line, printable
from lightning_prune.pruning.state_schema import check_header
from lightning_prune.report import columns, percent

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "params", "weights")
"""Keys under which checkpoints keep their weights, the likeliest first."""


@dataclass(frozen=True)
class Count:
    """The zeros of one tensor."""

    name: str
    shape: tuple[int, ...]
    size: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / self.size if self.size else 0.0


@dataclass(frozen=True)
class Pruning:
    """What a checkpoint written during pruning says of it."""

    callback: str
    last_update: int | None
    sparsity: float
    begin_step: int
    end_step: int
    masks: int
    masked: int


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune inspect",
        description="Show the sparsity by layer of a checkpoint: .ckpt, .pt, .pth or .safetensors, this library's or "
        "any other. Files are read as plain values and tensors; code in them is never run.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args(argv)
    content = load(options.file)
    counts = [_count(printable(name), tensor) for name, tensor in tensors(content)]
    if not counts:
        raise UserError(f"{options.file}: there is no tensor in it")
    found, damaged = list[Pruning](), list[str]()
    for state in prunings(content):
        (found if isinstance(state, Pruning) else damaged).append(state)  # pyright: ignore[reportArgumentType]
    for line in damaged:
        print(f"lightning-prune: {one_line(f'{options.file}: {line}')}", file=sys.stderr)
    print(_json(content, counts, found) if options.json else _text(content, counts, found))
    return int(bool(damaged))


def load(file: Path) -> Any:
    """Return what a checkpoint holds, on the CPU. Raises UserError where that is not possible without running code."""
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise UserError(f"{file} is no safetensors file: {message(error)}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and the like, of files that may be no checkpoints
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise UserError(f"{file} is no checkpoint of torch, or damaged: {_first_sentence(error)}") from error
        raise UserError(
            f"{file} holds more than tensors and plain values ({found.group(1)}); loading that could run code, so it "
            "is not loaded: save the model's state_dict() alone, and use that file"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{file} is no checkpoint of torch, or damaged: {_first_sentence(error)}") from error


def tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a checkpoint by dotted name, leaving out optimizers and the like."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None or not any(True for _ in _flat(inner)):
            break
        content = inner
    yield from _flat(content)


def prunings(content: Any) -> Iterator[Pruning | str]:
    """Yield the states of this library's callbacks in a Lightning checkpoint; where one is damaged, what it has."""
    callbacks = content.get("callbacks") if isinstance(content, Mapping) else None
    for key, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        if str(key).startswith("PruningCallback") and isinstance(state, Mapping) and "last_update" in state:
            try:
                yield _pruning(printable(str(key)), state)
            except ValueError as error:
                yield f"{key}: {error}"


def _pruning(callback: str, state: Mapping[str, Any]) -> Pruning:
    check_header(state, learned="finished" in state)
    masks = saved.mapping("masks", state.get("masks", {}))
    masked = sum(int((~saved.tensor(f"masks[{n!r}]", mask, bools=True)).count_nonzero()) for n, mask in masks.items())
    sparsity = saved.number("sparsity", state.get("sparsity", 0.0), 0.0, 1.0)
    window = (state["begin_step"], state["end_step"])
    return Pruning(callback, state["last_update"], sparsity, *window, len(masks), masked)


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield prefix.rstrip("."), node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if prefix or not str(key).startswith(("optim", "callbacks", "loops", "lr_sched", "scheduler")):
                yield from _flat(value, f"{prefix}{key}.")


def _count(name: str, tensor: Tensor) -> Count:
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:  # torch cannot count float8
        tensor = tensor.float()
    return Count(name, tuple(tensor.shape), tensor.numel(), tensor.numel() - int(tensor.count_nonzero()))


def _split(counts: list[Count]) -> tuple[list[Count], list[Count]]:
    return [c for c in counts if len(c.shape) >= 2], [c for c in counts if len(c.shape) < 2]


def _total(name: str, counts: list[Count]) -> Count:
    return Count(name, (), sum(c.size for c in counts), sum(c.zeros for c in counts))


def _text(content: Any, counts: list[Count], found: list[Pruning]) -> str:
    large, small = _split(counts)
    rows = [("tensor", "shape", "values", "zeros", "sparsity")]
    rows += [(c.name, "x".join(map(str, c.shape)), f"{c.size:,}", f"{c.zeros:,}", percent(c.sparsity)) for c in large]
    total = _total("of two or more dimensions", large)
    rows.append((total.name, "", f"{total.size:,}", f"{total.zeros:,}", percent(total.sparsity)))
    if small:
        few = _total(f"{len(small)} of fewer dimensions", small)
        rows.append((few.name, "", f"{few.size:,}", f"{few.zeros:,}", percent(few.sparsity)))
    every = _total("all", counts)
    rows.append((every.name, "", f"{every.size:,}", f"{every.zeros:,}", percent(every.sparsity)))
    lines = [columns(rows, rules={1, len(large) + 1})]
    if isinstance(content, Mapping) and isinstance(content.get("global_step"), int):
        lines.append(f"saved at step {content['global_step']:,}, epoch {printable(str(content.get('epoch')))}")
    for state in found:
        when = "not yet updated" if state.last_update is None else f"last updated at step {state.last_update:,}"
        lines.append(
            f"{state.callback}: {when}, scheduled from step {state.begin_step:,} to {state.end_step:,}, "
            f"sparsity asked for by then {percent(state.sparsity)}; "
            + (
                f"{state.masks} masks with {state.masked:,} entries pruned"
                if state.masks
                else "no masks: pruning is over"
            )
        )
    return "\n".join(lines)


def _json(content: Any, counts: list[Count], found: list[Pruning]) -> str:
    large, _ = _split(counts)
    facts = {
        "sparsity": _total("", large).sparsity,
        "zeros": _total("", large).zeros,
        "values": _total("", large).size,
        "all": {"zeros": _total("", counts).zeros, "values": _total("", counts).size},
        "tensors": [asdict(count) | {"sparsity": count.sparsity} for count in counts],
        "pruning": [asdict(state) for state in found],
    }
    if isinstance(content, Mapping) and isinstance(content.get("global_step"), int):
        facts["global_step"] = content["global_step"]
    return json.dumps(facts, indent=2)


def _first_sentence(error: BaseException) -> str:
    return message(error).partition(". ")[0][:200]
