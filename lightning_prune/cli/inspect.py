"""`lightning-prune inspect`: sparsity by layer of a checkpoint, this library's or any other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved
from lightning_prune.cli import checkpoints
from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import UserError, one_line, printable
from lightning_prune.pruning.state_schema import check_header
from lightning_prune.report import columns, percent


@dataclass(frozen=True)
class Count:
    """The zeros of one tensor; one that is tied to another before is not counted again."""

    name: str
    shape: tuple[int, ...]
    size: int
    zeros: int
    tied_to: str = ""

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
    gates: int = 0


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune inspect",
        description="Show the sparsity by layer of checkpoints: .ckpt, .pt, .pth or .safetensors, this library's or "
        "any other. Files are read as plain values and tensors, and code in them is not run unless you say so.",
    )
    parser.add_argument("file", type=Path, nargs="+", metavar="FILE", help="a checkpoint, or a run's folder")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table; a list for several files")
    parser.add_argument(
        "--trust", action="store_true", help="unpickle whatever is in a file, which runs code that it brings"
    )
    options = parser.parse_args(argv)
    several, said, sound = len(options.file) > 1, list[Any](), True
    for path in options.file:
        try:
            found = _found(checkpoints.file_of(path), options.trust)
        except UserError as error:
            if not several:
                raise
            print(f"lightning-prune: {one_line(str(error))}", file=sys.stderr)
            sound = False
            continue
        for line in found.damaged:
            print(f"lightning-prune: {one_line(f'{found.file}: {line}')}", file=sys.stderr)
        sound = sound and not found.damaged
        if options.json:
            said.append(({"file": str(found.file)} if several else {}) | _facts(found))
        else:
            said.append(f"{printable(str(found.file))}\n\n{_text(found)}" if several or path.is_dir() else _text(found))
    if options.json:
        print(as_json(said if several else said[0]))
    else:
        print("\n\n".join(said))
    return int(not sound)


@dataclass(frozen=True)
class _Found:
    file: Path
    content: Any
    counts: list[Count]
    pruning: list[Pruning]
    damaged: list[str]


def _found(file: Path, trusted: bool) -> _Found:
    content = checkpoints.load(file, trusted, "inspect it with --trust, or ")
    named = list(checkpoints.tensors(content))
    again = checkpoints.tied(named)
    counts = [replace(_count(printable(n), tensor), tied_to=printable(again.get(n, ""))) for n, tensor in named]
    if not counts:
        raise UserError(f"{file}: there is no tensor in it")
    states = list(prunings(content))
    damaged = [state for state in states if isinstance(state, str)]
    return _Found(file, content, counts, [state for state in states if isinstance(state, Pruning)], damaged)


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
    check_header(state, learned="finished" in state, gates="gates" in state)
    gates = saved.mapping("gates", state.get("gates", {}))
    masks = saved.mapping("masks", state.get("masks", {}))
    masked = sum(_pruned(name, mask) for name, mask in masks.items())
    sparsity = saved.number("sparsity", state.get("sparsity") or 0.0, 0.0, 1.0)
    window = (state["begin_step"], state["end_step"])
    return Pruning(callback, state["last_update"], sparsity, *window, len(masks), masked, len(gates))


def _pruned(name: str, mask: Any) -> int:
    """Return how many entries a mask of a state has pruned. In states of version 1 they are bool tensors."""
    where = f"masks[{name!r}]"
    if isinstance(mask, Tensor):
        return int((~saved.tensor(where, mask, bools=True)).count_nonzero())
    return saved.integer(f"{where}.pruned", saved.at(where, saved.mapping(where, mask), "pruned"))


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
    once = [count for count in counts if not count.tied_to]
    return Count(name, (), sum(c.size for c in once), sum(c.zeros for c in once))


def _title(count: Count) -> str:
    return f"{count.name} (tied to {count.tied_to})" if count.tied_to else count.name


def _text(found: _Found) -> str:
    content, counts = found.content, found.counts
    large, small = _split(counts)
    rows = [("tensor", "shape", "values", "zeros", "sparsity")]
    rows += [
        (_title(c), "x".join(map(str, c.shape)), f"{c.size:,}", f"{c.zeros:,}", percent(c.sparsity)) for c in large
    ]
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
    for state in found.pruning:
        when = "not yet updated" if state.last_update is None else f"last updated at step {state.last_update:,}"
        lines.append(
            f"{state.callback}: {when}, scheduled from step {state.begin_step:,} to {state.end_step:,}, "
            f"sparsity asked for by then {percent(state.sparsity)}; "
            + (
                f"{state.masks} masks with {state.masked:,} entries pruned"
                if state.masks
                else f"{state.gates} layers with gates, by example: no weight is zero for it"
                if state.gates
                else "no masks: pruning is over"
            )
        )
    return "\n".join(lines)


def _facts(found: _Found) -> dict[str, Any]:
    content, counts = found.content, found.counts
    large, _ = _split(counts)
    facts: dict[str, Any] = {
        "sparsity": _total("", large).sparsity,
        "zeros": _total("", large).zeros,
        "values": _total("", large).size,
        "all": {"zeros": _total("", counts).zeros, "values": _total("", counts).size},
        "tensors": [asdict(count) | {"sparsity": count.sparsity} for count in counts],
        "pruning": [asdict(state) for state in found.pruning],
    }
    if isinstance(content, Mapping) and isinstance(content.get("global_step"), int):
        facts["global_step"] = content["global_step"]
    return facts
