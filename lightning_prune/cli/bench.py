"""`lightning-prune bench`: how fast a run's model is beside the dense one, by batch and threads."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli import trusted
from lightning_prune.cli.as_json import as_json

if TYPE_CHECKING:
    from torch import nn

    from lightning_prune.cost import Cost

BATCHES = (1, 8, 64)
_BLOCKS = 8


@dataclass(frozen=True)
class Timing:
    """One batch on so many threads: the milliseconds of a forward of both models."""

    batch: int
    threads: int
    dense_ms: float
    ms: float

    @property
    def speedup(self) -> float:
        """How many times faster than the dense model."""
        return self.dense_ms / self.ms

    def facts(self) -> dict[str, float]:
        """Return all of it, with the examples a second."""
        each = {"dense_per_second": 1e3 * self.batch / self.dense_ms, "per_second": 1e3 * self.batch / self.ms}
        return asdict(self) | each | {"speedup": self.speedup}


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(argv)
    trust = trusted.given(options)

    import torch

    from lightning_prune.cli import build
    from lightning_prune.cli.export import trained
    from lightning_prune.cost import count
    from lightning_prune.coupling.example import example_of, with_batch

    model = trained(options.run, options.weights, trust)
    dense = build.task(trusted.config_of(options.run, ("task",), trust)).eval()
    inputs = example_of(dense, None)
    threads = options.threads or sorted({1, torch.get_num_threads()})
    costs = [count(each, with_batch(inputs, 1)) for each in (dense, model)]
    timings = [
        _timed((dense, model), with_batch(inputs, batch), batch, number)
        for number in threads
        for batch in options.batches
    ]
    if options.json:
        names = ("parameters", "macs", "file_bytes")
        facts = {key: {name: getattr(cost, name) for name in names} for key, cost in _named(costs).items()}
        print(as_json(facts | {"timings": [timing.facts() for timing in timings]}))
        return 0
    print(f"{_sizes(costs)}\n\n{_table(timings)}")
    print(f"the least of {_BLOCKS} medians of short blocks, both models in turn in this process, on the CPU")
    if costs[0].macs == costs[1].macs:
        print("the model has the dense one's shapes: zeros alone make nothing faster; see lightning-prune shrink")
    return 0


def _timed(models: Sequence[nn.Module], inputs: Any, batch: int, threads: int) -> Timing:
    from lightning_prune.pruning.target import steady_latency

    with _threads(threads):
        return Timing(batch, threads, *steady_latency(models, inputs, _BLOCKS))


@contextmanager
def _threads(number: int) -> Generator[None, None, None]:
    """Let torch use so many threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _named(costs: Sequence[Cost]) -> dict[str, Cost]:
    return dict(zip(("dense", "model"), costs, strict=True))


def _sizes(costs: Sequence[Cost]) -> str:
    from lightning_prune.report import columns

    dense, model = costs
    pairs = {
        "parameters": (dense.parameters, model.parameters),
        "MACs of an example": (dense.macs, model.macs),
        "file, bytes": (dense.file_bytes, model.file_bytes),
    }
    rows = [("", "dense", "model", "times less")]
    rows += [(name, f"{x:,}", f"{y:,}", f"{x / y:.2f}" if y else "") for name, (x, y) in pairs.items()]
    return columns(rows, rules={1})


def _table(timings: Sequence[Timing]) -> str:
    from lightning_prune.report import columns

    rows = [("threads", "batch", "dense, ms", "model, ms", "times faster", "dense, per s", "model, per s")]
    for timing in timings:
        facts = timing.facts()
        rows.append(
            (
                f"{timing.threads}",
                f"{timing.batch}",
                f"{timing.dense_ms:.3f}",
                f"{timing.ms:.3f}",
                f"{timing.speedup:.2f}",
                f"{facts['dense_per_second']:,.0f}",
                f"{facts['per_second']:,.0f}",
            )
        )
    return columns(rows, rules={1})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-prune bench",
        description="Time the model of a run beside the dense model that its config describes, in turn in one process, "
        "for several batches and numbers of threads on the CPU; with parameters, MACs and file size of both. A model "
        "that was made smaller is timed in its smaller shapes. Nothing is written. The task that RUN/config.yaml names "
        "is built if its classes are ours, PyTorch's or trusted; no other code is run.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--batches", type=_counts, default=BATCHES, help=f"{','.join(map(str, BATCHES))}")
    parser.add_argument("--threads", type=_counts, help="such as 1,2,4; by default 1 and as many as torch uses")
    parser.add_argument(
        "--weights", type=Path, help="other weights of this model, such as RUN/shrunk/model.safetensors"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    trusted.add_option(parser)
    return parser


def _counts(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: give whole numbers with commas between, such as 1,8") from None
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text}: each must be 1 or more")
    return values
