"""Three pruned nets in every format there is: how large the file is, and how long a forward takes, in turn.

The masks are by magnitude, at one stroke, of weights that were never trained: neither size nor speed depends on what a
net has learned, and no accuracy is looked at.

python benchmarks/exports.py [--net NAME ...] [--batches 1,64] [--threads 1] [--repeats 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shrink import taken_out
from timing import Contender, Time, in_turn, machine, table
from torch import Tensor, nn

from lightning_prune import Pruner, export
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import Shrunk, save_shrunk
from lightning_prune.tasks.gpt import GPT
from lightning_prune.tasks.nets import lenet300
from lightning_prune.tasks.resnet import resnet20

_IMAGE = torch.randn(1, 3, 32, 32)
_CALLS = 5
"""Forwards in a row of each contender."""


@dataclass(frozen=True)
class Subject:
    """A net, before and after pruning.

    Attributes:
        dense: as it was made.
        pruned: in the same shapes, with zeros.
        shrunk: without its dead units, where it has some.
        inputs: from a number of examples to what a forward takes.
    """

    dense: nn.Module
    pruned: nn.Module
    shrunk: Shrunk | None
    inputs: Callable[[int], Tensor]


@dataclass(frozen=True)
class Made:
    """A net in a format: what it takes on disk, and a forward of it."""

    bytes: int
    forward: Callable[[Tensor], object]


class SkippedError(Exception):
    """Why a net is not in a format."""


def sparse(make: Callable[[], nn.Module], sparsity: float, inputs: Callable[[int], Tensor]) -> Subject:
    """Return a net whose smallest weights are zero."""
    torch.manual_seed(0)
    dense = make().eval()
    torch.manual_seed(0)
    net, pruner = make().eval(), Pruner(OneShot(sparsity, 0))
    pruner.attach(net)
    pruner.after_step(0)
    pruner.strip()
    return Subject(dense, net, None, inputs)


def thin() -> Subject:
    """Return a ResNet-20 with half of its channels dead, which is a quarter of the weights."""
    torch.manual_seed(0)
    dense = resnet20().eval()
    torch.manual_seed(0)
    net = resnet20().eval()
    small = taken_out(net, 0.75, Channel(example_inputs=_IMAGE))
    small.model.eval()
    return Subject(dense, net, small, lambda batch: torch.randn(batch, 3, 32, 32))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "LeNet-300-100, 98 % of the weights": lambda: sparse(lenet300, 0.98, lambda batch: torch.randn(batch, 1, 28, 28)),
    "ResNet-20, half of the channels": thin,
    "GPT of 4 blocks of width 128, 90 % of the weights": lambda: sparse(
        lambda: GPT(84), 0.9, lambda batch: torch.randint(84, (batch, 128))
    ),
}


def of_torch(net: nn.Module, folder: Path) -> Made:
    torch.save(net.state_dict(), folder / "model.pt")
    return Made((folder / "model.pt").stat().st_size, net)


def compact(subject: Subject, batch: int, folder: Path) -> Made:
    written = export.save_compact(subject.pruned, folder / "model.compact.safetensors")
    subject.pruned.load_state_dict(export.load_compact(written.file))
    return Made(written.bytes, subject.pruned)


def exported(subject: Subject, batch: int, folder: Path) -> Made:
    file = folder / "model.pt2"
    export.to_exported_program(subject.pruned, file, subject.inputs(max(2, batch)))
    return Made(file.stat().st_size, torch.export.load(file).module())


def onnx(net: nn.Module, inputs: Tensor, folder: Path) -> Made:
    export.to_onnx(net, folder / "model.onnx", inputs)
    return of_runtime(folder / "model.onnx")


def of_runtime(file: Path) -> Made:
    """Return a forward of onnxruntime, on as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Made(file.stat().st_size, lambda inputs: session.run(None, {name: inputs.numpy()}))


def int8(subject: Subject, batch: int, folder: Path) -> Made:
    to_int8 = getattr(export, "to_int8", None)
    if to_int8 is None:
        raise SkippedError("lightning_prune.export has no to_int8")
    to_int8(subject.pruned, folder / "model.onnx", [subject.inputs(max(2, batch)) for _ in range(4)])
    return of_runtime(folder / "model.onnx")


def csr(subject: Subject, batch: int, folder: Path) -> Made:
    result = export.to_csr(subject.pruned, subject.inputs(batch))
    if not result.gains:
        raise SkippedError("no layer gains" if not result.converted else "the whole gains nothing")
    return Made(export.save_csr(subject.pruned, result, folder / "model.safetensors").bytes, result.model)


def shrunk(subject: Subject, batch: int, folder: Path) -> Made:
    if subject.shrunk is None:
        raise SkippedError("no unit is dead")
    save_shrunk(subject.shrunk, folder)
    return Made(sum(file.stat().st_size for file in folder.iterdir()), subject.shrunk.model)


def shrunk_onnx(subject: Subject, batch: int, folder: Path) -> Made:
    if subject.shrunk is None:
        raise SkippedError("no unit is dead")
    return onnx(subject.shrunk.model, subject.inputs(max(2, batch)), folder)


FORMATS: dict[str, Callable[[Subject, int, Path], Made]] = {
    "dense, .pt": lambda subject, _, folder: of_torch(subject.dense, folder),
    "pruned, .pt": lambda subject, _, folder: of_torch(subject.pruned, folder),
    "compact": compact,
    "torch.export": exported,
    "ONNX, float": lambda subject, batch, folder: onnx(subject.pruned, subject.inputs(max(2, batch)), folder),
    "ONNX, int8": int8,
    "CSR": csr,
    "shrunk": shrunk,
    "shrunk, ONNX": shrunk_onnx,
}
"""The first is what all are compared with."""


def made(subject: Subject, batch: int) -> dict[str, Made | str]:
    """Return the net in each format, or why it is not in that."""
    found: dict[str, Made | str] = {}
    for name, make in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = make(subject, batch, Path(folder))
            except (SkippedError, ModuleNotFoundError) as error:
                found[name] = str(error)
    return found


def timed(formats: dict[str, Made | str], inputs: Tensor, repeats: int) -> dict[str, Time]:
    contenders = {
        name: Contender(lambda each=each: each.forward(inputs))
        for name, each in formats.items()
        if isinstance(each, Made)
    }
    with torch.inference_mode():
        return in_turn(contenders, repeats, calls=_CALLS)


def rows(subject: Subject, batches: list[int], repeats: int) -> list[list[str]]:
    """Return a row a format: the size, and for each batch the milliseconds, both beside those of the dense net."""
    formats = {batch: made(subject, batch) for batch in batches}
    times = {batch: timed(formats[batch], subject.inputs(batch), repeats) for batch in batches}
    dense, found = next(iter(FORMATS)), list[list[str]]()
    for name in FORMATS:
        each = next((f[name] for f in formats.values() if isinstance(f[name], Made)), formats[batches[0]][name])
        if not isinstance(each, Made):
            found.append([name, each, "", *["", ""] * len(batches)])
            continue
        whole = formats[batches[0]][dense]
        assert isinstance(whole, Made)
        row = [name, f"{each.bytes / 1e3:,.1f}", f"{whole.bytes / each.bytes:.2f}"]
        for batch in batches:
            there = formats[batch][name]
            if isinstance(there, Made):
                wall = times[batch][name].wall
                row += [f"{1e3 * wall:.3f}", f"{times[batch][dense].wall / wall:.2f}"]
            else:
                row += [there, ""]
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = ["format", "kB", "times smaller"]
    for batch in options.batches:
        head += [f"batch {batch}, ms", "times faster"]
    print(machine())
    found: dict[str, list[list[str]]] = {}
    for name in options.net:
        found[name] = rows(SUBJECTS[name](), options.batches, options.repeats)
        print(f"\n{name}\n\n{table(head, found[name])}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"head": head, "nets": found}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
