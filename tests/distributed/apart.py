"""Takes nets apart as FSDP2 and tensor parallelism do, and compares them with whole ones: what the scripts share.

A layout is DATAxTENSOR, "2x1" say, "hsdp": two replicas of two pieces, or "ddp": all on each rank. The net is
12-18-7-3, so that few splits are even and some pieces are empty.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lightning_prune.masks import MaskedWeight
from lightning_prune.shards import local, shard_of
from tests.distributed.regression import TIMEOUT


def begin() -> None:
    """Have this rank join the others, unless Lightning has seen to it."""
    if not dist.is_initialized():
        rank, ranks = int(os.environ["LOCAL_RANK"]), int(sys.argv[3])
        store = f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        dist.init_process_group("gloo", store, TIMEOUT, world_size=ranks, rank=rank)


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Return the net, the same on every rank and in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(12, 18), nn.Tanh(), nn.Linear(18, 7), nn.Tanh(), nn.Linear(7, 3)
        return nn.Sequential(*layers).to(dtype)


def take_apart(model: nn.Sequential, mesh: DeviceMesh, data: str, tensor: str | None, policy: bool = False) -> None:
    """Take a net apart over the dimensions of a mesh; "hsdp" is split over the first and replicated over the second."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    if tensor is not None and mesh[tensor].size() > 1:
        parallelize_module(model, mesh[tensor], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    if data == "hsdp":
        fully_shard(model, mesh=mesh)
    elif mesh[data].size() > 1:
        lower = MixedPrecisionPolicy(torch.bfloat16 if policy else None, torch.float32 if policy else None)
        fully_shard(model[2], mesh=mesh[data], mp_policy=lower)
        fully_shard(model, mesh=mesh[data], mp_policy=lower)


def mesh_of(layout: str) -> tuple[DeviceMesh, str, str | None]:
    if layout == "hsdp":
        return init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")), "hsdp", None
    data, tensor = (int(number) for number in layout.split("x"))
    return init_device_mesh("cpu", (data, tensor), mesh_dim_names=("data", "tensor")), "data", "tensor"


def move(model: nn.Module, plain: nn.Module, step: int, ties: str) -> None:
    """Give both the same new values: with ties, rounded to eighths, or zero but for one in ten."""
    generator = torch.Generator().manual_seed(step)
    for old, new in zip(plain.parameters(), model.parameters(), strict=True):
        with torch.no_grad():
            values = old + torch.randn(old.shape, generator=generator).to(old.dtype)
            values = (values * 8).round() / 8 if ties == "eighths" else values
            few = torch.rand(old.shape, generator=generator) < 0.1
            values = values * few if ties == "zeros" else values
            shard = shard_of(new)
            old.copy_(values)
            local(new).copy_(values if shard is None else shard.piece(values))


def differs(one: MaskedWeight, other: MaskedWeight) -> str:
    if not torch.equal(other.piece(one.mask), other.mask):
        return f"{int((other.piece(one.mask) != other.mask).sum())} entries of the mask"
    if not torch.equal(other.piece(one.values.detach()), other.values.detach()):
        return "the weights"
    if (float(one.threshold), one.pruned) != (float(other.threshold), other.pruned):
        return f"thresholds {float(one.threshold)} {float(other.threshold)}, pruned {one.pruned} {other.pruned}"
    return ""


def main(scenarios: str, folder: Path, known: dict[str, Callable[[str, Path], dict[str, Any]]]) -> None:
    """Run scenarios, and write what comes of them."""
    torch.set_num_threads(1)
    for scenario in scenarios.split(","):
        name, layout = scenario.split("@")
        result = known[name](layout, folder)
        torch.save(result, folder / f"{scenario}.{os.environ.get('LOCAL_RANK', '0')}.pt")
    dist.destroy_process_group()
