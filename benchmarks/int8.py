"""Pruned nets as ONNX in float and with weights of 8 bits, timed in turn by onnxruntime; the files' sizes.

python benchmarks/int8.py [threads] [net ...]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from latency import NETS
from timing import machine, table

from lightning_prune import Pruner
from lightning_prune.export import to_int8, to_onnx
from lightning_prune.schedule import OneShot

_BATCHES, _TURNS, _SECONDS = (1, 16), 31, 0.02


def sessions(name: str, threads: int) -> tuple[Any, Any, int, int, float]:
    """Return onnxruntime's sessions of the float net and of that with 8 bits, the bytes of both, and the difference."""
    import onnxruntime

    make, shape = NETS[name]
    torch.manual_seed(0)
    net = make().eval()
    pruner = Pruner(OneShot(0.9, 0))
    pruner.attach(net)
    pruner.after_step(0)
    pruner.strip()
    batches = [torch.randn(8, *shape[1:]) for _ in range(4)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{kind}.onnx" for kind in ("float", "int8")]
        to_onnx(net, files[0], batches[0])
        result = to_int8(net, files[1], batches)
        made = [onnxruntime.InferenceSession(f, options, providers=["CPUExecutionProvider"]) for f in files]
        return made[0], made[1], files[0].stat().st_size, result.bytes, result.difference


def medians(pair: tuple[Any, Any], inputs: Any) -> tuple[float, float]:
    """Return the median milliseconds of a forward of two sessions, in turns of short blocks."""
    times: list[list[float]] = [[], []]
    name = pair[0].get_inputs()[0].name
    start = time.perf_counter()
    pair[0].run(None, {name: inputs})
    calls = max(1, int(_SECONDS / max(time.perf_counter() - start, 1e-6)))
    for turn in range(_TURNS + 2):
        for session, found in zip(pair, times, strict=True):
            start = time.perf_counter()
            for _ in range(calls):
                session.run(None, {name: inputs})
            if turn >= 2:
                found.append(1000 * (time.perf_counter() - start) / calls)
    return median(times[0]), median(times[1])


def main() -> None:
    """Print a table."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rows: list[list[str]] = []
    for name in sys.argv[2:] or list(NETS):
        *pair, float_bytes, bytes_, difference = sessions(name, threads)
        for batch in _BATCHES:
            shape = NETS[name][1]
            before, after = medians((pair[0], pair[1]), torch.randn(batch, *shape[1:]).numpy())
            size = f"{float_bytes / 1e3:,.0f} -> {bytes_ / 1e3:,.0f}"
            ratio = f"{before / after:.2f}"
            rows.append([f"{name}, batch {batch}", f"{before:.3f}", f"{after:.3f}", ratio, size, f"{difference:.1e}"])
    print(machine())
    print(f"onnxruntime, {threads} thread(s), median of {_TURNS} blocks in turn\n")
    print(table(["net", "float, ms", "8 bits, ms", "float / 8 bits", "kB", "difference"], rows))


if __name__ == "__main__":
    main()
