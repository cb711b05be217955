"""Bytes kept for each prunable weight, and the most that one update takes for a moment, at ResNet-50's size.

python benchmarks/memory.py        (Linux)
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pytorch_lightning.callbacks import ModelPruning
from resnet50 import resnet50_weights
from stairs import Stairs
from timing import machine, table
from torch import Tensor, nn

from lightning_prune import Pruner


def alive() -> int:
    """Return how many bytes the storages of all tensors alive take, each storage once."""
    gc.collect()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if _is_tensor(t)}
    return sum(storages.values())


def _is_tensor(thing: object) -> bool:
    return type(thing) in (Tensor, nn.Parameter)


def start_afresh() -> int:
    """Give back what is free, forget the peak so far, and return the memory that this process has, in bytes."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak()


def peak() -> int:
    """Return the most memory that this process has had since then, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def ours(model: nn.ModuleList) -> tuple[Callable[[], object], list[Callable[[], object]]]:
    pruner = Pruner(Stairs((0.5, 0.9)))
    return lambda: pruner.attach(model), [lambda: pruner.update(0), lambda: pruner.update(1)]


def peer(model: nn.ModuleList) -> tuple[Callable[[], object], list[Callable[[], object]]]:
    pairs = [(layer, "weight") for layer in model]
    callback = ModelPruning("l1_unstructured", pairs, use_global_unstructured=True)
    return lambda: None, [lambda: callback.apply_pruning(0.5), lambda: callback.apply_pruning(0.8)]


def measure(contender: str) -> list[str]:
    """Return a row: kept after attach and after two updates, and the peak of the updates, in bytes a weight."""
    model = resnet50_weights()
    size = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    before = alive()
    attach, updates = {"ours": ours, "ModelPruning": peer}[contender](model)
    attach()
    row = [contender, f"{(alive() - before) / size:.4f}"]
    for update in updates:
        resident = start_afresh()
        update()
        row += [f"{(alive() - before) / size:.4f}", f"{(peak() - resident) / size:.2f}"]
    return row


def main() -> None:
    if len(sys.argv) > 1:
        print("\t".join(measure(sys.argv[1])))
        return
    rows = [  # a process each, so that neither finds memory that the other has left
        subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True).stdout.split("\t")
        for name in ("ours", "ModelPruning")
    ]
    print(machine())
    head = ["bytes a weight", "kept after attach", "after the first update", "its peak", "after the second", "its peak"]
    print(table(head, [[cell.strip() for cell in row] for row in rows]))


if __name__ == "__main__":
    main()
