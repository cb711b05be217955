"""Prunes units of weights that lie in pieces of many kinds; test_sharded_units.py runs it as a script.

    python units.py SCENARIO@LAYOUT,SCENARIO@LAYOUT FOLDER PROCESSES

Layouts and what is written are those of pieces.py. Of 18, 9, 7 and 4 few splits are even, and some pieces are empty.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from lightning_prune import Pruner
from lightning_prune.criterion import FilterNorm, FirstOrderDelta, SecondOrderDelta
from lightning_prune.pattern import Block, Column, Element, Kernel, NofM, Row
from lightning_prune.pruning.units_of_pieces import grid_at
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK, GlobalRanking, Uniform
from lightning_prune.selection import Histogram, Sort
from lightning_prune.targets import Targets
from tests.distributed.apart import begin, differs, main, mesh_of, move


class Mixed:
    """Rows of linear layers, kernels of convolutions, single entries of the rest."""

    def at(self, name: str) -> Any:
        return Row() if name.startswith("wide") else Kernel() if name.startswith("conv") else Element()


HALF = {"schedule": OneShot(0.7, 2), "targets": Targets(exclude=("last.weight",))}
IDEAS: dict[str, Callable[[], dict[str, Any]]] = {
    "rows": lambda: {"pattern": Row()},
    "rows of each": lambda: {"pattern": Row(), "scope": Uniform()},
    "rows by norm": lambda: {"pattern": Row(), "criterion": FilterNorm()},
    "rows that move": lambda: {"pattern": Row(), "criterion": FirstOrderDelta(0.9), "reversible": True},
    "columns": lambda: {"pattern": Column()},
    "columns of each": lambda: {"pattern": Column(), "scope": ERK(), "criterion": SecondOrderDelta(0.9)},
    "kernels": lambda: {"pattern": Kernel()},
    "kernels with a floor": lambda: {"pattern": Kernel(), "scope": GlobalRanking(floor=0.2)},
    "kernels of each": lambda: {"pattern": Kernel(), "scope": Uniform(), "selection": Sort(threshold_decay=0.3)},
    "blocks": lambda: {"pattern": Block(3, 2)},
    "blocks of each": lambda: {"pattern": Block(3, 2), "scope": Uniform(), "selection": Histogram(nbins=50)},
    "tall blocks": lambda: {"pattern": Block(-1, 3, "max"), "scope": Uniform()},
    "wide blocks": lambda: {"pattern": Block(1, -1)},
    "flat blocks": lambda: {"pattern": Block(1, 2), "scope": GlobalRanking(floor=0.1), "reversible": True},
    "2:4": lambda: {"pattern": NofM(2, 4)} | HALF,
    "1:3 of moves": lambda: {"pattern": NofM(1, 3), "criterion": FirstOrderDelta(0.9)} | HALF,
    "mixed": lambda: {"pattern": Mixed()},
}


def net(dtype: torch.dtype) -> nn.ModuleDict:
    """Return layers that nothing is computed with, the same on every rank."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: dict[str, nn.Module] = {
            "wide": nn.Linear(12, 18),
            "wider": nn.Linear(18, 7),
            "conv": nn.Conv2d(4, 9, 3, bias=False),
            "conv_of_one": nn.Conv1d(8, 6, 1),
            "turned": nn.ConvTranspose2d(4, 8, 2),
            "last": nn.Linear(4, 7),
        }
        return nn.ModuleDict(layers).to(dtype)


def take_apart(model: nn.Module, mesh: DeviceMesh) -> None:
    """Spread parameters over a mesh: over its first dimension along outputs or, of every other, along inputs."""
    for number, module in enumerate(model.children()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            across = Shard(1) if number % 2 and parameter.dim() > 1 else Shard(0)
            other: Any = Replicate() if parameter.dim() < 2 else Shard(1 - across.dim)
            both = (across, other) if mesh.size(0) > 1 else (Replicate(), across)
            values = distribute_tensor(parameter.detach(), mesh, both)
            setattr(module, name, nn.Parameter(values))


def equal(layout: str, folder: Path) -> dict[str, Any]:
    """Prune layers that are taken apart and whole ones of equal weights, and return in what they differ.

    Of each idea also which weights a border may cut units of, and how often a whole weight was collected.
    """
    begin()
    mesh, *_ = mesh_of(layout)
    found: list[str] = []
    cut: dict[str, list[str]] = {}
    whole: dict[str, int] = {}
    compared, empty = 0, False
    for name, dtype, ties in _cases():
        model, plain = net(dtype), net(dtype)
        take_apart(model, mesh)
        ideas: dict[str, Any] = {"schedule": Polynomial(0.7, 1, 4, 1)} | IDEAS[name]()
        split, alone = Pruner(**ideas), Pruner(**ideas)
        split.attach(model, 12)
        alone.attach(plain, 12)
        with mock.patch.object(DTensor, "full_tensor", autospec=True, side_effect=DTensor.full_tensor) as collect:
            for step in range(1, 5):
                move(model, plain, step, ties)
                if split.after_step(step) != alone.after_step(step):
                    found.append(f"{name} {dtype} {step}: one of them was updated")
                for key, weight in alone.masks.items():
                    compared += 1
                    if difference := differs(weight, split.masks[key]):
                        found.append(f"{name} {dtype} ties={ties} step {step} {key}: {difference}")
        whole[name] = collect.call_count
        cut[name] = [key for key, w in split.masks.items() if w.shard and grid_at(w, ideas["pattern"]) is None]
        empty |= any(not weight.mask.numel() for weight in split.masks.values())
        one, other = split.strip().to_dict(), alone.strip().to_dict()
        if one != other:
            found.append(f"{name} {dtype}: the reports differ: {one} {other}")
    return {"found": found, "compared": compared, "cut": cut, "whole": whole, "empty": empty}


def _cases() -> Iterator[tuple[str, torch.dtype, str]]:
    for name in IDEAS:
        yield name, torch.float32, "none"
        if name in ("rows", "columns", "kernels of each", "flat blocks", "2:4", "blocks of each"):
            yield name, torch.bfloat16 if name == "rows" else torch.float32, "eighths"


SCENARIOS: dict[str, Callable[[str, Path], dict[str, Any]]] = {"equal": equal}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), SCENARIOS)
