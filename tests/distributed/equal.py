"""Prunes nets of pieces and whole ones of equal weights by every idea: a scenario of pieces.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lightning_prune import Pruner
from lightning_prune.criterion import FilterNorm, FirstOrderDelta, GeometricMedian, Random, SecondOrderDelta
from lightning_prune.pattern import Block, Column, NofM, Row
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK, GlobalRanking, Uniform
from lightning_prune.selection import Exact, Histogram, Sort
from lightning_prune.shards import local
from lightning_prune.targets import Targets
from tests.distributed.apart import begin, differs, mesh_of, move, net, take_apart

IDEAS: dict[str, Callable[[], dict[str, Any]]] = {
    "magnitude": lambda: {},
    "no floor": lambda: {"scope": GlobalRanking(floor=0.0)},
    "uniform": lambda: {"scope": Uniform()},
    "erk": lambda: {"scope": ERK()},
    "rules": lambda: {"targets": Targets(sparsity={"0.weight": 0.5})},
    "histogram": lambda: {"selection": Histogram(nbins=50, threshold_decay=0.3)},
    "sort": lambda: {"selection": Sort(threshold_decay=0.3)},
    "sort with a floor": lambda: {"selection": Sort(), "scope": GlobalRanking(floor=0.1)},
    "floor": lambda: {"selection": Exact(), "scope": GlobalRanking(floor=0.15)},
    "first order": lambda: {"criterion": FirstOrderDelta(0.9)},
    "second order": lambda: {"criterion": SecondOrderDelta(0.9)},
    "random": lambda: {"criterion": Random(seed=3)},
    "filter norm": lambda: {"criterion": FilterNorm()},
    "geometric median": lambda: {"criterion": GeometricMedian()},
    "reversible": lambda: {"reversible": True},
    "block": lambda: {"pattern": Block(2, 3)},
    "row": lambda: {"pattern": Row()},
    "column": lambda: {"pattern": Column()},
    "2:4": lambda: {"pattern": NofM(2, 4), "targets": Targets(include=("0.weight",)), "schedule": OneShot(0.5, 4)},
}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def equal(layout: str, folder: Path) -> dict[str, Any]:
    """Prune a net that is taken apart and a whole one of equal weights, and return in what they differ."""
    begin()
    mesh, data, tensor = mesh_of(layout)
    found: list[str] = []
    compared = 0
    for name, dtype, ties in _cases():
        model, plain = net(dtype), net(dtype)
        take_apart(model, mesh, data, tensor)
        ideas: dict[str, Any] = {"schedule": Polynomial(0.8, 2, 9, 2)} | IDEAS[name]()
        split, alone = Pruner(**ideas), Pruner(**ideas)
        split.attach(model, 12)
        alone.attach(plain, 12)
        for step in range(1, 11):
            move(model, plain, step, ties)
            if split.after_step(step) != alone.after_step(step):
                found.append(f"{name} {dtype} {step}: one of them was updated")
            for key, weight in alone.masks.items():
                difference = differs(weight, split.masks[key])
                compared += 1
                if difference:
                    found.append(f"{name} {dtype} ties={ties} step {step} {key}: {difference}")
        one, other = split.strip().to_dict(), alone.strip().to_dict()
        if one != other:
            found.append(f"{name} {dtype}: the reports differ: {one} {other}")
    model = net()
    take_apart(model, mesh, data, tensor)
    empty = any(not local(parameter).numel() for parameter in model.parameters())
    return {"found": found, "compared": compared, "empty": empty}


def _cases() -> Iterator[tuple[str, torch.dtype, str]]:
    for name in IDEAS:
        for dtype in DTYPES.values() if name in ("magnitude", "reversible", "sort") else [torch.float32]:
            for ties in ("none", "eighths", "zeros") if name in ("magnitude", "floor", "histogram") else ("eighths",):
                yield name, dtype, ties
