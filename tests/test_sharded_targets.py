"""Parameters that are sharded over ranks are refused by the name of what shards them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lightning_prune import LearnedMasks, Pruner
from lightning_prune.pattern import Element
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets


class FlatParameter(nn.Parameter):
    """Stands for torch's, which shows itself as a plain parameter with a mark."""


def flat(layer: nn.Linear) -> None:
    layer.weight = FlatParameter(layer.weight.detach().clone())


def marked_flat(layer: nn.Linear) -> None:
    layer.weight._is_flat_param = True  # pyright: ignore[reportAttributeAccessIssue]


def zero_3(layer: nn.Linear) -> None:
    layer.weight.ds_id, layer.weight.ds_status = 3, "NOT_AVAILABLE"  # pyright: ignore[reportAttributeAccessIssue]


KINDS: dict[str, tuple[Any, str]] = {
    "flat": (flat, "FlatParameter of FSDP1"),
    "marked flat": (marked_flat, "FlatParameter of FSDP1"),
    "deepspeed": (zero_3, "DeepSpeed"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [Pruner, lambda schedule: LearnedMasks(schedule, pattern=Element())])
def test_G13_a_sharded_parameter_is_refused_by_name(kind: str, make: Any) -> None:
    mark, name = KINDS[kind]
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    mark(model[2])
    pruner = make(OneShot(0.5, 1))
    with pytest.raises(ValueError, match=rf"'2.weight' is sharded over ranks \({name}\).*use DDP"):
        pruner.attach(model)
    assert not pruner.attached
    assert not any("mask" in key for module in model.modules() for key in vars(module))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_G13_a_module_that_fsdp1_wraps_is_refused(tmp_path: Path) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = FullyShardedDataParallel(nn.Linear(4, 6), device_id=torch.device("cpu"))
        with pytest.raises(ValueError, match=r"FlatParameter of FSDP1\).*use DDP"):
            Targets().find(wrapped)
    finally:
        dist.destroy_process_group()
