"""Fifty steps in float16 with a loss scaler, and in bfloat16: pruned entries stay zero, and as many as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gpu_sections.tools import Table, Where, mlp, rows_of, yes
from lightning_prune import Pruner
from lightning_prune.regularizer import L2
from lightning_prune.schedule import Polynomial

HEAD = ["arithmetic", "steps", "skipped by the scaler", "steps with a pruned entry not zero", "zeros", "exact"]
STEPS, SPARSITY = 50, 0.8


@dataclass(frozen=True)
class Case:
    """How a run computes."""

    dtype: torch.dtype | None = None
    scaled: bool = False
    weights: torch.dtype = torch.float32
    regularizer: Any = None


CASES = {
    "float32, fused AdamW": Case(),
    "float16 autocast, GradScaler, fused AdamW": Case(torch.float16, True),
    "the same with L2": Case(torch.float16, True, regularizer=L2(1e-3)),
    "bfloat16 autocast, fused AdamW": Case(torch.bfloat16),
    "bfloat16 weights, fused AdamW": Case(weights=torch.bfloat16),
    "float16 weights, fused AdamW": Case(weights=torch.float16),
}


def run(where: Where) -> list[Table]:
    return [Table(HEAD, rows_of(CASES, lambda case: _row(where, case), len(HEAD)))]


def _row(where: Where, case: Case) -> Sequence[str]:
    kind = where.device.type
    model = mlp(where).to(case.weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-4, fused=True)
    scaler = torch.amp.GradScaler(kind, init_scale=2.0**24 if case.scaled else 1.0, enabled=case.scaled)
    pruner = Pruner(Polynomial(SPARSITY, 2, 30, 4), regularizer=case.regularizer)
    pruner.attach(model, STEPS)
    skipped, done = 0, 0
    broken = torch.zeros((), device=where.device)
    for step in range(STEPS):
        optimizer.zero_grad()
        x = where.randn(64, 64, seed=step).to(case.weights)
        with torch.autocast(kind, case.dtype, enabled=case.dtype is not None):
            loss = (model(x).float() - 1).square().mean()
        scaler.scale(loss).backward()
        scale = scaler.get_scale()
        pruner.before_step(optimizer, scale)
        scaler.step(optimizer)
        scaler.update()
        took = scaler.get_scale() >= scale
        skipped, done = skipped + (not took), done + took
        pruner.after_step(done, [optimizer])
        left = [(w.parameter.detach() * ~w.mask).count_nonzero() for w in pruner.masks.values()]
        broken += (torch.stack(left).sum() > 0).float()
    weights = list(pruner.masks.values())
    zeros = sum(int((w.parameter == 0).sum()) for w in weights)
    wanted = round(SPARSITY * sum(w.mask.numel() for w in weights))
    pruned = sum(int((~w.mask).sum()) for w in weights)
    return [str(STEPS), str(skipped), str(int(broken)), f"{zeros:,} of {wanted:,}", yes(pruned == wanted)]
