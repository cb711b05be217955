"""A run that is stopped, saved and resumed on the device, beside one that nobody disturbed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from gpu_sections.tools import Table, Where, mlp, on_cpu, rows_of, yes
from lightning_prune import Pruner
from lightning_prune.criterion import SecondOrderDelta
from lightning_prune.learned import LearnedMasks
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial

HEAD = ["what", "steps", "same model", "same masks and thresholds", "same optimizer state", "equal tensors"]
STEPS, STOP = 20, 9
RAMP = Polynomial(0.7, 2, 16, 2)


def run(where: Where) -> list[Table]:
    def channel() -> Channel:
        return Channel(example_inputs=where.randn(2, 64))

    engines: dict[str, Callable[[], Any]] = {
        "Pruner": lambda: Pruner(RAMP),
        "Pruner, reversible": lambda: Pruner(RAMP, reversible=True),
        "Pruner, SecondOrderDelta": lambda: Pruner(RAMP, criterion=SecondOrderDelta()),
        "Pruner, Channel": lambda: Pruner(RAMP, pattern=channel()),
        "LearnedMasks": lambda: LearnedMasks(RAMP, pattern=channel()),
    }
    torch.use_deterministic_algorithms(True)
    rows = rows_of(engines, lambda engine: _row(where, engine), len(HEAD))
    return [Table(HEAD, rows, f"Stopped behind step {STOP}, saved with torch.save and read into new objects.")]


def _row(where: Where, engine: Callable[[], Any]) -> Sequence[str]:
    whole = _part(where, engine, None, STEPS)
    file = io.BytesIO()
    torch.save(_part(where, engine, None, STOP), file)
    file.seek(0)
    resumed = _part(where, engine, torch.load(file, weights_only=True), STEPS)
    pairs = [list(zip(tree_leaves(a), tree_leaves(b), strict=True)) for a, b in zip(whole, resumed, strict=True)]
    same = [[_same(a, b) for a, b in pair] for pair in pairs]
    counted = f"{sum(map(sum, same))} / {sum(map(len, same))}"
    return [str(STEPS), *(yes(all(each)) for each in same), counted]


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def _part(where: Where, engine: Callable[[], Any], saved: Any, until: int) -> tuple[Any, Any, Any]:
    """Train from the start, or from what was saved, and return the states of model, masks and optimizer."""
    model, masks = mlp(where), engine()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if saved is not None:
        model.load_state_dict(saved[0])
        masks.load_state_dict(saved[1])
        optimizer.load_state_dict(saved[2])
    masks.attach(model, STEPS)
    for step in range(0 if saved is None else STOP, until):
        optimizer.zero_grad()
        model(where.randn(64, 64, seed=step)).square().mean().backward()
        masks.before_step(optimizer)
        optimizer.step()
        masks.after_step(step + 1, [optimizer])
    return on_cpu(dict(model.state_dict())), on_cpu(masks.state_dict()), on_cpu(optimizer.state_dict())
