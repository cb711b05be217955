"""One update of a model that FSDP2 has taken apart over two gloo processes, against one process with all of it.

python benchmarks/pieces.py [repeats]

12 layers of 1024 x 1024: 12.6 million weights, half of them on each process. Every process has one thread. Both kinds
of models are updated in turn, from the same weights, behind a barrier; of each the least time of many, by the clock.
Bytes are those of the tensors that collectives fill.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from stairs import Stairs
from timing import machine, table
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_prune import Pruner
from lightning_prune.criterion import FilterNorm, FirstOrderDelta
from lightning_prune.pattern import Block, Channel, Column, NofM, Row
from lightning_prune.shards import local, shard_of
from lightning_prune.shrink import whole_again

RANKS, WIDTH, LAYERS = 2, 1024, int(os.environ.get("LAYERS", "12"))
CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "single weights, 0 -> 50 %": lambda: {"schedule": Stairs((0.0, 0.5))},
    "single weights, 49 -> 50 %": lambda: {"schedule": Stairs((0.49, 0.5))},
    "`FirstOrderDelta()`, 49 -> 50 %": lambda: {"schedule": Stairs((0.49, 0.5)), "criterion": FirstOrderDelta()},
    "`Row()`, 30 -> 50 %": lambda: {"schedule": Stairs((0.3, 0.5)), "pattern": Row()},
    "`NofM(2, 4)`, 49 -> 50 %": lambda: {"schedule": Stairs((0.49, 0.5)), "pattern": NofM(2, 4)},
    "`Block(4, 4)`, 30 -> 50 %": lambda: {"schedule": Stairs((0.3, 0.5)), "pattern": Block(4, 4)},
    "`Column()`, 30 -> 50 %": lambda: {"schedule": Stairs((0.3, 0.5)), "pattern": Column()},
    "`FilterNorm()`, `Row()`, 30 -> 50 %": lambda: {
        "schedule": Stairs((0.3, 0.5)),
        "criterion": FilterNorm(),
        "pattern": Row(),
    },
    "`Channel()`, 30 -> 50 %": lambda: {
        "schedule": Stairs((0.3, 0.5)),
        "pattern": Channel(example_inputs=torch.ones(1, WIDTH)),
    },
}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH, bias=False), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Sent(TorchDispatchMode):
    """Counts collectives, but for barriers, and the bytes of the tensors that they fill."""

    def __init__(self) -> None:
        super().__init__()
        self.collectives, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        found = func(*args, **(kwargs or {}))
        if name in ("c10d::allreduce_", "c10d::allgather_", "_c10d_functional::all_gather_into_tensor"):
            filled = found if name.startswith("_") else args[0]
            self.collectives += 1
            self.bytes += sum(t.numel() * t.element_size() for t in tree_leaves(filled) if isinstance(t, Tensor))
        return found


class Updated:
    """A pruner on a model, and the way back to before the update that is timed."""

    def __init__(self, ideas: dict[str, Any], apart: bool) -> None:
        self.model, self.pruner = model(), Pruner(**ideas)
        self.pruner.find_units(self.model)
        if apart:
            for layer in self.model:
                if isinstance(layer, nn.Linear):
                    fully_shard(layer, mesh=init_device_mesh("cpu", (RANKS,)))
            fully_shard(self.model, mesh=init_device_mesh("cpu", (RANKS,)))
        self.pruner.attach(self.model)
        self.pruner.update(0)
        self.state = self.pruner.state_dict()
        self.before = [local(parameter).detach().clone() for parameter in self.model.parameters()]

    def go_back(self) -> None:
        with torch.no_grad():
            for parameter, before in zip(self.model.parameters(), self.before, strict=True):
                local(parameter).copy_(before)
        self.pruner.load_state_dict(self.state)
        dist.barrier()

    def seconds(self) -> float:
        self.go_back()
        start = time.perf_counter()
        assert self.pruner.update(1)
        return time.perf_counter() - start

    def sent(self) -> Sent:
        """Return what one more update sends."""
        self.go_back()
        with Sent() as sent:
            self.pruner.update(1)
        return sent

    def masks(self) -> list[Tensor]:
        return [weight.mask for weight in self.pruner.masks.values()]


def measure(rank: int, folder: str, repeats: int) -> None:
    """Time all cases on one rank; the first prints the times, those of the slower rank."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    rows: list[list[str]] = []
    for name, ideas in CASES.items():
        split, alone = Updated(ideas(), apart=True), Updated(ideas(), apart=False)
        times: list[list[float]] = []
        for _ in range(repeats + 1):
            here = torch.tensor([split.seconds(), 0.0])
            if rank == 0:  # the other waits, and leaves this one the machine
                here[1] = alone.seconds()
            else:
                dist.barrier()
            dist.all_reduce(here, dist.ReduceOp.MAX)
            times.append(here.tolist())
        if rank == 0:
            shards = [shard_of(parameter) for parameter in split.model.parameters()]
            pieces = [mask if s is None else s.piece(mask) for mask, s in zip(alone.masks(), shards, strict=True)]
            assert all(torch.equal(one, other) for one, other in zip(split.masks(), pieces, strict=True))
        apart, whole = (min(row[index] for row in times[1:]) for index in range(2))
        sent = split.sent()
        numbers = [f"{1000 * whole:.1f}", f"{1000 * apart:.1f}", f"{apart / whole:.2f}"]
        rows.append([name, *numbers, f"{sent.collectives}", f"{sent.bytes / 1e3:,.1f}"])
        split.pruner.strip()
        whole_again(split.model)
    if rank == 0:
        print(machine() + "\n")
        print(table(["update", "one process, ms", "two, of pieces, ms", "two / one", "collectives", "kB"], rows))
    dist.destroy_process_group()


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
        spawn(measure, (str(Path(place)), repeats), nprocs=RANKS)
